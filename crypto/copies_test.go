//go:build goolm

package crypto_test

import (
	"errors"
	"testing"
	"time"

	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// members is a room of a bot that reads what devices write that their owners have signed, with two people who have.
func members(t *testing.T) (w *world, bot id.UserID, room id.RoomID, alice, bob *hand) {
	w = newWorld(t)
	bot, room, alice, bob = w.members()
	return w, bot, room, alice, bob
}

func (w *world) members() (bot id.UserID, room id.RoomID, alice, bob *hand) {
	w.with(func(o *crypto.Options) { o.Receive = crypto.TrustCrossSigned })
	bot = w.as.Bot().UserID()
	w.no(w.crypto.Prepare(w.t.Context(), bot))
	room = w.room(bot)
	w.alice.signs()
	other := newPerson(w, "bob")
	other.signs()
	w.settle()
	return bot, room, w.hand(w.alice, bot), w.hand(other, bot)
}

// takes hands the bridge a room key as the hand's own.
func (w *world) takes(h *hand, key *olm.OutboundGroupSession, change func(content fields)) {
	w.t.Helper()
	p := h.payload(key)
	if change != nil {
		change(p["content"].(fields))
	}
	w.no(w.crypto.HandleKeys(w.t.Context(), h.encrypt(p)))
}

func (w *world) readsAs(ev *appservice.Event, reader id.UserID, want string) {
	w.t.Helper()
	if opened, err := w.crypto.Open(w.t.Context(), ev, reader); err != nil || text(opened) != want {
		w.t.Errorf("%q, %v", text(opened), err)
	}
}

// The bridge has Alice's key from her second message on. Bob, a member, has it from the first, and gives that as his own.
func TestRoomKey_EarlierOneFromAnotherMember_DoesNotTakeItsMakersPlace(t *testing.T) {
	w, bot, room, alice, bob := members(t)
	key := w.roomKey(room)
	_ = w.alice.sealedWith(key, "$0", "before the bridge was here")
	later := key.Internal.Key()
	w.takes(alice, key, func(c fields) { c["session_key"] = later })
	w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
	w.takes(bob, key, nil)
	w.readsAs(w.alice.sealedWith(key, "$2", "two"), bot, "two")
	w.reopen()
	w.takes(bob, key, nil)
	w.readsAs(w.alice.sealedWith(key, "$3", "three"), bot, "three")
}

// Bob is there with it before Alice is.
func TestRoomKey_FromAnotherMemberFirst_IsNoneForItsMakersMessages_AndKeepsHersFromNothing(t *testing.T) {
	for name, change := range map[string]func(content fields){"in its room": nil, "under another room": func(c fields) { c["room_id"] = "!elsewhere:hs.test" }} {
		t.Run(name, func(t *testing.T) {
			w, bot, room, alice, bob := members(t)
			key := w.roomKey(room)
			w.takes(bob, key, change)
			ev := w.alice.sealedWith(key, "$1", "one")
			if _, err := w.crypto.Open(t.Context(), ev, bot); !errors.Is(err, crypto.ErrNoKey) { // and not one of those that stay
				t.Errorf("with Bob's alone: got %v, want ErrNoKey", err)
			}
			changed, err := w.crypto.Watch(t.Context(), ev, key.ID(), bot)
			w.no(err)
			w.takes(alice, key, nil)
			storetest.Commit(t, w.store, func(tx *store.Tx) error {
				if came, err := changed(tx); err != nil || !came {
					t.Errorf("that Alice's key has come is not seen: %t %v", came, err)
				}
				return nil
			})
			w.readsAs(ev, bot, "one")
			w.takes(bob, key, change)
			w.readsAs(w.alice.sealedWith(key, "$2", "two"), bot, "two")
			again := w.alice.encryptedEvent(room, "$3", object(content(t, ev)))
			if _, err := w.crypto.Open(t.Context(), again, bot); !errors.Is(err, crypto.ErrReplayed) {
				t.Errorf("a repetition: got %v, want ErrReplayed", err)
			}
		})
	}
}

// Bob has given Alice's key as his and repeats what she wrote, before the bridge has the key of her, or after it has read her. That is said in his name, as if he
// had written the same words; hers are read all the same, and neither can repeat anything.
func TestRoomKey_FromAnotherMemberWhoRepeatsItsMakersMessage_KeepsHersFromNothing(t *testing.T) {
	for _, first := range []string{"bob", "alice"} {
		t.Run(first+" is read first", func(t *testing.T) {
			w, bot, room, alice, bob := members(t)
			key := w.roomKey(room)
			ev := w.alice.sealedWith(key, "$1", "one")
			as := func(p *person, eventID string) *appservice.Event {
				return p.encryptedEvent(room, eventID, object(content(t, ev)))
			}
			stolen := as(bob.p, "$bob")
			read := map[string]func(){
				"alice": func() { w.takes(alice, key, nil); w.readsAs(ev, bot, "one") },
				"bob":   func() { w.takes(bob, key, nil); w.readsAs(stolen, bot, "one") },
			}
			read[first]()
			for _, next := range read {
				next()
			}
			w.reopen()
			for _, next := range read { // each event can be read again
				next()
			}
			for _, again := range []*appservice.Event{as(w.alice, "$2"), as(bob.p, "$bob2"), as(w.alice, "$bob"), as(bob.p, "$1")} {
				if _, err := w.crypto.Open(t.Context(), again, bot); !errors.Is(err, crypto.ErrReplayed) {
					t.Errorf("%s of %s: got %v, want ErrReplayed", again.ID, again.Sender, err)
				}
			}
		})
	}
}

// What waits for a key is looked at again for each that comes, and then waits anew: who sends one that opens nothing has no end of that.
func TestRoomKey_ThatOpensNoMoreThanBefore_OrIsOfSomebodyElse_TakesUpNothing(t *testing.T) {
	w, bot, room, alice, bob := members(t)
	key := w.roomKey(room)
	first := key.ShareContent().Parsed.(*event.RoomKeyEventContent).SessionKey
	ev := w.alice.sealedWith(key, "$1", "one")
	ev.Lane = "room:" + string(room)
	_ = w.alice.sealedWith(key, "$2", "two")
	second := key.Internal.Key()
	_ = w.alice.sealedWith(key, "$3", "three")
	third := key.Internal.Key()
	parked := func() int {
		d, err := w.store.Depth(t.Context())
		w.no(err)
		return int(d.Parked)
	}
	takes := func(h *hand, sessionKey string, want int) {
		t.Helper()
		storetest.Commit(t, w.store, func(tx *store.Tx) error {
			return tx.WithdrawParked(string(room), "$1")
		})
		storetest.Commit(t, w.store, func(tx *store.Tx) error {
			return w.as.Park(ev, key.ID(), time.Now().Add(time.Hour), nil)(tx)
		})
		w.takes(h, key, func(c fields) { c["session_key"] = sessionKey })
		if got := parked(); got != want {
			t.Errorf("%d events are parked, want %d", got, want)
		}
	}
	takes(bob, first, 1)
	takes(alice, third, 0) // it may be this one
	takes(alice, third, 1)
	takes(bob, first, 1)
	takes(alice, second, 0)
	takes(alice, third, 1)
	takes(alice, first, 0)
	takes(alice, first, 1)
	w.readsAs(ev, bot, "one")
}

// She gives the key that she has given for one room under another.
func TestRoomKey_FromItsMakerUnderAnotherRoom_DoesNotTakeItFromItsRoom(t *testing.T) {
	w, bot, room, alice, _ := members(t)
	key := w.roomKey(room)
	w.takes(alice, key, nil)
	p := alice.payload(key)
	p["content"].(fields)["room_id"] = "!elsewhere:hs.test"
	if err := w.crypto.HandleKeys(t.Context(), alice.encrypt(p)); !errors.Is(err, crypto.ErrMismatch) || !appservice.IsPermanent(err) {
		t.Errorf("got %v, want ErrMismatch", err)
	}
	w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
}

// Copies of the same session are used and go together: what tells repetitions goes with the first.
func TestRoomKey_SecondCopyThatIsUsed_KeepsWhatTellsRepetitions(t *testing.T) {
	w, bot, room, alice, bob := members(t)
	key := w.roomKey(room)
	foreign, err := w.store.Foreign()
	w.no(err)
	age := func() {
		storetest.Commit(t, w.store, func(tx *store.Tx) error { // as if a year had gone by
			_, err := foreign.Exec(tx.Context(t.Context()), `UPDATE crypto_megolm_inbound_session SET received_at = $1`, time.Now().Add(-366*24*time.Hour))
			return err
		})
	}
	w.takes(bob, key, nil)
	age()
	w.takes(alice, key, nil)
	ev := w.alice.sealedWith(key, "$1", "one")
	for range 2 {
		w.readsAs(ev, bot, "one")
		w.settle()
		w.no(w.store.Prune(t.Context()))
		again := w.alice.encryptedEvent(room, "$2", object(content(t, ev)))
		if _, err := w.crypto.Open(t.Context(), again, bot); !errors.Is(err, crypto.ErrReplayed) {
			t.Errorf("got %v, want ErrReplayed", err)
		}
		age()
	}
}

// A second device of one user gives the session of the first as its own.
func TestRoomKey_FromAnotherDeviceOfItsMaker_DoesNotTakeItsPlace(t *testing.T) {
	w, bot, room, alice, _ := members(t)
	key := w.roomKey(room)
	w.takes(alice, key, nil)
	other := *w.alice
	other.olm = olm.NewOlmMachine(w.alice.client, nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	w.no(other.olm.Load(t.Context()))
	h := w.hand(&other, bot)
	p := h.payload(key)
	delete(p, "sender_device_keys")
	if err := w.crypto.HandleKeys(t.Context(), h.encrypt(p)); !errors.Is(err, crypto.ErrMismatch) || !appservice.IsPermanent(err) {
		t.Errorf("got %v, want ErrMismatch", err)
	}
	w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
}

// The second device is there first: it is not signed, as one is with which somebody has logged in who knows the password only.
func TestRoomKey_FromADeviceThatIsNotTrustedFirst_KeepsTheMakersFromNothing(t *testing.T) {
	for n, least := range []crypto.Trust{crypto.TrustAny, crypto.TrustCrossSigned, crypto.TrustAny, crypto.TrustCrossSigned} {
		onBoth(t, func(t *testing.T, w *world) {
			bot, room, alice, _ := w.members()
			w.with(func(o *crypto.Options) { o.Receive = least })
			if n < 2 { // else nobody has asked for the devices yet
				_, err := w.seal(bot, room, "x")
				w.no(err)
			}
			key := w.roomKey(room)
			h := w.hand(w.alice.again(), bot)
			early := func() error {
				p := h.payload(key)
				delete(p, "sender_device_keys")
				return w.crypto.HandleKeys(t.Context(), h.encrypt(p))
			}
			w.no(early())
			w.takes(alice, key, nil)
			w.readsAs(w.alice.sealedWith(key, "$1", "one"), bot, "one")
			if err := early(); !errors.Is(err, crypto.ErrMismatch) {
				t.Errorf("%d, %s: the other device takes the place again: %v", n, least, err)
			}
			w.readsAs(w.alice.sealedWith(key, "$2", "two"), bot, "two")
		})
	}
}

// content is that of an event.
func content(t *testing.T, ev *appservice.Event) *event.EncryptedEventContent {
	t.Helper()
	decoded, err := ev.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return decoded.Content.Parsed.(*event.EncryptedEventContent)
}
