package crypto

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/internal/keylock"
	"github.com/trestle-bridge/trestle/store"
)

// ErrEncrypted is why nothing readable is sent into an encrypted room.
var ErrEncrypted = errors.New("the Matrix room is encrypted, and this bridge takes no part in it (encryption.mode is off, or encryption in the entry of bridge.plumb)")

// Guard says which rooms must not see plaintext.
type Guard struct {
	store *store.Store
	as    *appservice.AppService
	who   func(ctx context.Context, room id.RoomID) (*appservice.Intent, error)
	asks  keylock.Map

	mu sync.Mutex
	// plain are the rooms that the homeserver has said to be plain in this process, and the [appservice.AppService.HomeserverReturns] before it was asked. What
	// an earlier process, or the time before an outage, knew of them is nothing to go by: encryption may have been switched on meanwhile, and nobody has told.
	plain map[id.RoomID]int64
}

// maxPlain is how many plain rooms are remembered. To forget one costs a request.
const maxPlain = 100_000

// NewGuard makes a guard. who says as whom the homeserver is asked about a room: a user of the bridge's that is in it.
func NewGuard(s *store.Store, as *appservice.AppService, who func(ctx context.Context, room id.RoomID) (*appservice.Intent, error)) *Guard {
	return &Guard{store: s, as: as, who: who, plain: map[id.RoomID]int64{}}
}

// Check returns nil if plaintext may be sent into the room and [ErrEncrypted] if it may not. Any other error means that
// nobody knows: then nothing may be sent either, and it can be asked again.
//
// It costs one read of the store. That a room is encrypted is believed for ever; that it is plain costs one request to the homeserver after a start, and one
// after each time that the homeserver could not be reached.
func (g *Guard) Check(ctx context.Context, room id.RoomID) error {
	if encrypted, err := g.encrypted(ctx, room); err != nil || encrypted {
		return orEncrypted(err)
	}
	if g.isPlain(room) {
		return nil
	}
	unlock, err := g.asks.Lock(ctx, string(room)) // many may want to come in or speak at once
	if err != nil {
		return fmt.Errorf("asking whether %s is encrypted: %w", room, err)
	}
	defer unlock()
	if !g.isPlain(room) {
		if err := g.look(ctx, room); err != nil {
			return err
		}
	}
	// The state event may have been taken in while the homeserver was answering.
	if encrypted, err := g.encrypted(ctx, room); err != nil || encrypted {
		return orEncrypted(err)
	}
	return nil
}

func orEncrypted(err error) error {
	if err == nil {
		err = ErrEncrypted
	}
	return err
}

func (g *Guard) encrypted(ctx context.Context, room id.RoomID) (bool, error) {
	encrypted, _, err := g.store.Encrypted(ctx, string(room))
	if err != nil {
		return false, fmt.Errorf("reading whether %s is encrypted: %w", room, err)
	}
	return encrypted, nil
}

// isPlain says whether a room was found to be plain, and the homeserver has been there since.
func (g *Guard) isPlain(room id.RoomID) bool {
	if g.as.HomeserverAway() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.plain[room]
	return ok && at == g.as.HomeserverReturns()
}

// look asks the homeserver, and keeps what it says.
func (g *Guard) look(ctx context.Context, room id.RoomID) error {
	returns := g.as.HomeserverReturns()
	encrypted, err := g.ask(ctx, room)
	if err != nil {
		return err
	}
	if encrypted {
		err = g.store.Commit(ctx, g.store.Epoch(), func(tx *store.Tx) error { return tx.SetEncrypted(string(room), true) })
		if err != nil {
			return fmt.Errorf("recording that %s is encrypted: %w", room, err)
		}
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.plain) >= maxPlain {
		clear(g.plain)
	}
	g.plain[room] = returns
	return nil
}

// Forget makes the next Check of a room that was found to be plain ask again: while the bot is out of a room, nobody tells
// it that encryption was switched on.
func (g *Guard) Forget(ctx context.Context, room id.RoomID) error {
	unlock, err := g.asks.Lock(ctx, string(room)) // what is being answered may be from before
	if err != nil {
		return fmt.Errorf("forgetting whether %s is encrypted: %w", room, err)
	}
	defer unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.plain, room)
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
