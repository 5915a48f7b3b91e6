package bridge

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// This file is how encrypted rooms are opened and closed to the bridge: which mode a room has, whose keys are used in it, and what is done at the start.
// unread.go is what happens to events that cannot be read, sealing.go how what goes to Matrix is encrypted.

// cipher is what the bridge needs of package crypto.
type cipher interface {
	// Prepare gives a user its device, and its keys to the homeserver.
	Prepare(ctx context.Context, user id.UserID) error
	// HandleKeys takes in to-device messages, device lists and key counts.
	HandleKeys(ctx context.Context, ev *appservice.Event) error
	Open(ctx context.Context, ev *appservice.Event, reader id.UserID) (*event.Event, error)
	// Watch notes what there is of a session's key; changed says whether that is another by then.
	Watch(ctx context.Context, ev *appservice.Event, session id.SessionID, reader id.UserID) (changed func(tx *store.Tx) (bool, error), err error)
	RequestKey(ctx context.Context, ev *appservice.Event, reader id.UserID) error
	Seal(ctx context.Context, s crypto.Sealing) (json.RawMessage, error)
	ResetCrossSigning(ctx context.Context, user id.UserID) error
	Close() error
}

var _ cipher = (*crypto.Crypto)(nil)

// modes says what is done in which encrypted room.
type modes struct {
	otherwise string
	channel   map[string]string
	room      map[id.RoomID]string
	// later: the configuration has something to say about a room of which only the alias is known.
	later bool
}

func (b *Bridge) newModes() modes {
	m := modes{otherwise: b.cfg.Encryption.Mode, channel: map[string]string{}, room: map[id.RoomID]string{}}
	for _, p := range b.cfg.Bridge.Plumb {
		if p.Encryption == "" {
			continue
		}
		if name, err := b.channelName(p.Channel); err == nil {
			m.channel[name] = p.Encryption
		}
		if p.Room[0] == '!' {
			m.room[id.RoomID(p.Room)] = p.Encryption
		} else {
			m.later = true
		}
	}
	return m
}

// of gives the mode of a room that is or is about to be connected to a channel; the channel may be empty.
func (m *modes) of(room id.RoomID, channel string) string {
	if mode, ok := m.channel[channel]; ok {
		return mode
	}
	if mode, ok := m.room[room]; ok {
		return mode
	}
	return m.otherwise
}

// mode is what the bridge does in a room when that is encrypted.
func (b *Bridge) mode(room id.RoomID) string {
	if p := b.portals.room(room); p != nil {
		return b.modes.of(room, p.Channel)
	}
	return b.modes.of(room, "")
}

// admits returns nil when the bridge takes part in a room: it is plain, or encrypted and has a mode for that. Otherwise it is
// crypto.ErrEncrypted, or nobody knows.
func (b *Bridge) admits(ctx context.Context, room id.RoomID) error {
	err := b.guard.Check(ctx, room)
	if isEncrypted(err) && b.mode(room) != modeOff {
		return nil
	}
	return err
}

// keepsWords takes the network's words out of what goes into an encrypted room in the clear: why somebody leaves, say. Under ctx nothing leaves with them once
// encryption was switched on.
func (b *Bridge) keepsWords(ctx context.Context, o *outgoing) (context.Context, error) {
	if o.Reason == "" {
		return ctx, nil
	}
	err := b.guard.Check(ctx, o.Room)
	if isEncrypted(err) {
		o.Reason = ""
		return ctx, nil
	}
	return appservice.Looking(ctx, func(ctx context.Context) error { return b.stillPlain(ctx, o.Room) }), err
}

// speaker is who speaks for the bridge in a room, and whose device reads there: the bot; in a room without it, such as a direct chat, the first of the
// ghosts that are there.
func (b *Bridge) speaker(ctx context.Context, room id.RoomID) (id.UserID, error) {
	bot := b.as.Bot().UserID()
	membership, err := b.store.Member(ctx, string(room), string(bot))
	if err != nil || membership == "join" {
		return bot, err
	}
	members, err := b.store.Members(ctx, string(room))
	if err != nil {
		return bot, err
	}
	var ghosts []id.UserID
	for user, membership := range members {
		if membership == "join" && b.as.IsGhost(id.UserID(user)) {
			ghosts = append(ghosts, id.UserID(user))
		}
	}
	if len(ghosts) == 0 {
		return bot, nil
	}
	return slices.Min(ghosts), nil
}

const (
	pickleKeySetting = "crypto.pickle_key"
	modesSetting     = "crypto.modes"
)

// openCipher makes what encrypts and decrypts, when the configuration wants any of it.
func (b *Bridge) openCipher(ctx context.Context) error {
	b.modes = b.newModes()
	if !b.cfg.encrypts() {
		return nil
	}
	c, err := newCipher(ctx, b.cfg, b.store, b.as, b.log)
	if err != nil {
		return err
	}
	b.cipher = c
	return nil
}

// pickleKey is that of the configuration, or one that is made at the first start.
func pickleKey(ctx context.Context, cfg *Config, s *store.Store) ([]byte, error) {
	if cfg.Encryption.PickleKey != "" {
		return []byte(cfg.Encryption.PickleKey), nil
	}
	key, err := s.Setting(ctx, pickleKeySetting)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return key, err
	}
	key = []byte(rand.Text())
	return key, s.Commit(ctx, s.Epoch(), func(tx *store.Tx) error { return tx.PutSetting(pickleKeySetting, key) })
}

// noteModes makes rooms be told anew that the bridge cannot read them, after modes were changed: some may have been read in between.
func (b *Bridge) noteModes(ctx context.Context) error {
	now := mustJSON(map[string]any{"otherwise": b.modes.otherwise, "channel": b.modes.channel, "room": b.modes.room})
	before, err := b.store.Setting(ctx, modesSetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if string(before) == string(now) {
		return nil
	}
	return b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		if before != nil {
			if err := crypto.ForgetSentences(tx); err != nil {
				return err
			}
		}
		return tx.PutSetting(modesSetting, now)
	})
}

// prepareCipher gives the bot its keys: it reads wherever it is, and speaks for itself.
func (b *Bridge) prepareCipher(ctx context.Context) error {
	if b.cipher == nil {
		return nil
	}
	if err := b.cipher.Prepare(ctx, b.as.Bot().UserID()); err != nil {
		return fmt.Errorf("giving the bot its keys: %w", err)
	}
	return nil
}

// becameEncrypted is what follows when encryption is switched on in a room: its sentence, or keys for who reads it.
func (b *Bridge) becameEncrypted(ctx context.Context, room id.RoomID) ([]appservice.Effect, error) {
	mode := b.mode(room)
	if mode == modeOff {
		return b.sentence(room), nil
	}
	reader, err := b.speaker(ctx, room)
	if err != nil || reader == b.as.Bot().UserID() || mode == modeBot { // the bot has its keys since the start
		return nil, err
	}
	return nil, b.prepareReader(ctx, reader)
}

// prepareReader gives keys to a ghost that reads a room. Where only an administrator can, nothing is to be read there until then, and nothing else waits for it.
func (b *Bridge) prepareReader(ctx context.Context, reader id.UserID) error {
	err := b.cipher.Prepare(ctx, reader)
	if isIdentityLost(err) {
		b.log.Warn().Err(err).Stringer("user_id", reader).Msg("The ghost that reads an encrypted room has no keys: nothing that is written there is read")
		return nil
	}
	return err
}

// isIdentityLost says that a ghost has keys which only an administrator can replace. Its messages are dead letters until then: who else is in the room does not wait.
func isIdentityLost(err error) bool {
	return errors.Is(err, crypto.ErrOtherIdentity) || errors.Is(err, crypto.ErrApproval) || errors.Is(err, crypto.ErrForeign)
}

// handleEncrypted opens an event and goes on with what is in it.
func (b *Bridge) handleEncrypted(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if isEmptied(ev) {
		return nil, nil // redacted before it came here: there is nothing to read
	}
	if b.mode(ev.RoomID) == modeOff {
		return nil, appservice.Permanent(crypto.ErrEncrypted)
	}
	reader, err := b.speaker(ctx, ev.RoomID)
	if err != nil {
		return nil, err
	}
	opened, err := b.cipher.Open(ctx, ev, reader)
	if errors.Is(err, crypto.ErrNoMachine) { // the mode is another than it was when the reader came in, say: what is written next is for its device as well
		if prepareErr := b.prepareReader(ctx, reader); prepareErr != nil {
			return nil, prepareErr
		}
	}
	if isKeyless(err) {
		return b.awaitKey(ctx, ev, reader, err)
	}
	return b.goOn(ctx, ev, opened, err)
}

// goOn goes on with what was encrypted in an event, or with what is wrong with it.
func (b *Bridge) goOn(ctx context.Context, ev *appservice.Event, opened *event.Event, err error) ([]appservice.Effect, error) {
	switch {
	case unreadable(err) != "":
		return nil, appservice.Permanent(err)
	case err != nil:
		return nil, fmt.Errorf("decrypting it: %w", err)
	}
	now := time.Now()
	b.held.opened(ev, now, now.Add(b.cfg.Encryption.Patience), b.cfg.Encryption.Hold)
	return b.handleContent(ctx, ev, opened)
}

// isEmptied says whether nothing is left of what was encrypted.
func isEmptied(ev *appservice.Event) bool {
	var left struct {
		Content map[string]json.RawMessage `json:"content"`
	}
	return json.Unmarshal(ev.Raw, &left) == nil && left.Content["algorithm"] == nil && left.Content["ciphertext"] == nil
}

// takesPlain returns nil when what was written in the clear may be taken. In an encrypted room anybody on the way could have written it: it is taken
// only where all devices are trusted.
func (b *Bridge) takesPlain(ctx context.Context, room id.RoomID) error {
	if b.cipher == nil || trusts[b.cfg.Encryption.Receive] == crypto.TrustAny || b.mode(room) == modeOff {
		return nil
	}
	switch err := b.guard.Check(ctx, room); {
	case isEncrypted(err):
		return appservice.Permanent(fmt.Errorf("%w (encryption.receive is %s)", errPlain, b.cfg.Encryption.Receive))
	case isRefusal(err): // none of the bridge's users is there: nobody told of a switch, and nothing is taken further
		return nil
	default:
		return err
	}
}

// handleKeys takes in what a homeserver sends for devices.
func (b *Bridge) handleKeys(ctx context.Context, ev *appservice.Event) error {
	if b.cipher == nil {
		return nil // nothing uses them while the bridge cannot decrypt
	}
	return b.cipher.HandleKeys(ctx, ev)
}
