package crypto

import (
	"context"
	"errors"
	"fmt"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// ErrEncrypted is why nothing readable is sent into an encrypted room.
var ErrEncrypted = errors.New("the Matrix room is encrypted, and this bridge takes no part in it")

// Guard says which rooms must not see plaintext.
type Guard struct {
	store *store.Store
	who   func(ctx context.Context, room id.RoomID) (*appservice.Intent, error)
}

// NewGuard makes a guard. who says as whom the homeserver is asked about a room: a user of the bridge's that is in it.
func NewGuard(s *store.Store, who func(ctx context.Context, room id.RoomID) (*appservice.Intent, error)) *Guard {
	return &Guard{store: s, who: who}
}

// Check returns nil if plaintext may be sent into the room and [ErrEncrypted] if it may not. Any other error means that
// nobody knows: then nothing may be sent either, and it can be asked again.
//
// It costs one read of the store, and one request to the homeserver for a room that was never asked about.
func (g *Guard) Check(ctx context.Context, room id.RoomID) error {
	encrypted, known, err := g.store.Encrypted(ctx, string(room))
	if err != nil {
		return fmt.Errorf("reading whether %s is encrypted: %w", room, err)
	}
	if !known {
		if encrypted, err = g.ask(ctx, room); err != nil {
			return err
		}
		err = g.store.Commit(ctx, g.store.Epoch(), func(tx *store.Tx) error {
			return tx.SetEncrypted(string(room), encrypted)
		})
		if err != nil {
			return fmt.Errorf("recording whether %s is encrypted: %w", room, err)
		}
		// The state event may have been taken in while the homeserver was answering; the store keeps "true" then.
		if encrypted, _, err = g.store.Encrypted(ctx, string(room)); err != nil {
			return fmt.Errorf("reading whether %s is encrypted: %w", room, err)
		}
	}
	if encrypted {
		return ErrEncrypted
	}
	return nil
}

// Forget makes the next Check of a room that was found to be plain ask again: while the bot is out of a room, nobody tells
// it that encryption was switched on.
func (g *Guard) Forget(ctx context.Context, room id.RoomID) error {
	err := g.store.Commit(ctx, g.store.Epoch(), func(tx *store.Tx) error { return tx.ForgetPlain(string(room)) })
	if err != nil {
		return fmt.Errorf("forgetting whether %s is encrypted: %w", room, err)
	}
	return nil
}

func (g *Guard) ask(ctx context.Context, room id.RoomID) (encrypted bool, err error) {
	var content event.EncryptionEventContent
	who, err := g.who(ctx, room)
	if err == nil {
		err = who.State(ctx, room, event.StateEncryption, "", &content)
	}
	if errors.Is(err, mautrix.MNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking whether %s is encrypted: %w", room, err)
	}
	// An algorithm that is empty or unknown is still encryption.
	return true, nil
}

// Sentence is the one plain message that an encrypted room gets, once, so that nobody waits for an answer that cannot
// come. network is the network's name for people.
func Sentence(network string) *event.MessageEventContent {
	return &event.MessageEventContent{
		MsgType: event.MsgNotice,
		Body: "This room is encrypted, and I cannot read encrypted messages. Nothing written here reaches " + network +
			", and nothing from there is shown here. Use a room without encryption, or ask the bridge's administrator.",
		Mentions: &event.Mentions{},
	}
}

// SentenceOnce records in tx that the room gets its sentence now; it is false if the room has had it.
func SentenceOnce(tx *store.Tx, room id.RoomID) (first bool, err error) {
	return tx.SetNoticed(string(room), sentenceNotice)
}

const sentenceNotice = "encrypted"

// ForgetSentences makes rooms be told again: what they were told was not true for a while.
func ForgetSentences(tx *store.Tx) error { return tx.ForgetNotices(sentenceNotice) }
