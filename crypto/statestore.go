//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// stateStore tells mautrix's machines of rooms what the bridge's store knows: there is no second copy.
type stateStore struct{ store *store.Store }

var _ crypto.StateStore = stateStore{}

func (s stateStore) IsEncrypted(ctx context.Context, room id.RoomID) (bool, error) {
	encrypted, _, err := s.store.Encrypted(ctx, string(room))
	return encrypted, err
}

// GetEncryptionEvent gives the content of m.room.encryption, without which mautrix uses the specification's own limits.
func (s stateStore) GetEncryptionEvent(ctx context.Context, room id.RoomID) (*event.EncryptionEventContent, error) {
	content := &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}
	return content, s.read(ctx, room, event.StateEncryption, content)
}

// GetHistoryVisibility gives nil for what is not one of the four values: unknown visibility means that history is not shared
// (MSC3061). mautrix would take it for shared.
func (s stateStore) GetHistoryVisibility(ctx context.Context, room id.RoomID) (*event.HistoryVisibilityEventContent, error) {
	var content event.HistoryVisibilityEventContent
	if err := s.read(ctx, room, event.StateHistoryVisibility, &content); err != nil {
		return nil, err
	}
	switch content.HistoryVisibility {
	case event.HistoryVisibilityInvited, event.HistoryVisibilityJoined, event.HistoryVisibilityShared, event.HistoryVisibilityWorldReadable:
		return &content, nil
	}
	return nil, nil
}

func (s stateStore) FindSharedRooms(ctx context.Context, user id.UserID) ([]id.RoomID, error) {
	rooms, err := s.store.EncryptedRoomsWith(ctx, string(user))
	out := make([]id.RoomID, len(rooms))
	for i, room := range rooms {
		out[i] = id.RoomID(room)
	}
	return out, err
}

// read leaves into alone when nothing is known, or what is known cannot be read.
func (s stateStore) read(ctx context.Context, room id.RoomID, typ event.Type, into any) error {
	content, err := s.store.RoomState(ctx, string(room), typ.Type)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil {
		_ = json.Unmarshal(content, into)
	}
	return err
}
