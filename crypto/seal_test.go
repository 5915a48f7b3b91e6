//go:build goolm

package crypto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// toDevices is how many to-device requests the homeserver was sent.
func (w *world) toDevices() int {
	return len(w.hs.Requests(func(r bridgetest.Request) bool { return strings.Contains(r.Path, "/sendToDevice/m.room.encrypted/") }))
}

// reads gives what the person reads of a sealed content, which is sent into the room first.
func (w *world) reads(room id.RoomID, as id.UserID, sealed json.RawMessage, txn string) string {
	w.t.Helper()
	_, err := w.as.Ghost(as).SendMessage(w.t.Context(), room, event.EventEncrypted, sealed, txn)
	w.no(err)
	events := w.alice.sync(room)
	if len(events) == 0 {
		w.t.Fatal("no event came")
	}
	read, err := w.alice.olm.DecryptMegolmEvent(w.t.Context(), events[len(events)-1])
	if err != nil {
		return err.Error()
	}
	return text(read)
}

func TestSeal_Relation_StaysReadableAsItIs(t *testing.T) {
	w, bot, room, _ := prepared(t)
	const relation = `{"rel_type":"m.thread","event_id":"$root","is_falling_back":true,"m.in_reply_to":{"event_id":"$last"},"org.example.more":[1]}`
	content := json.RawMessage(`{"msgtype":"m.text","body":"in a thread","m.relates_to":` + relation + `}`)
	sealed, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: content})
	w.no(err)
	var got struct {
		RelatesTo json.RawMessage `json:"m.relates_to"`
		Algorithm string          `json:"algorithm"`
	}
	w.no(json.Unmarshal(sealed, &got))
	if string(got.RelatesTo) != relation || got.Algorithm != "m.megolm.v1.aes-sha2" || strings.Contains(string(sealed), "in a thread") {
		t.Errorf("got %s", sealed)
	}
	if got := w.reads(room, bot, sealed, "1"); got != "in a thread" {
		t.Errorf("the person read %q", got)
	}
}

func TestSeal_ContentThatIsNoObject_IsRefused(t *testing.T) {
	w, bot, room, _ := prepared(t)
	for _, content := range []string{`"text"`, `[]`, `{`, ``} {
		_, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: json.RawMessage(content)})
		if err == nil {
			t.Errorf("%q was encrypted", content)
		}
	}
}

func TestSeal_Record_IsInTheSameCommitAsTheStep(t *testing.T) {
	w, bot, room, _ := prepared(t)
	no := errors.New("the row is gone")
	sealing := crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("kept")}
	sealing.Record = func(tx *store.Tx, sealed json.RawMessage) error {
		return errors.Join(tx.Bury(&store.DeadLetter{Kind: "sealed", Body: sealed}), no)
	}
	if _, err := w.crypto.Seal(t.Context(), sealing); !errors.Is(err, no) {
		t.Fatalf("got %v", err)
	}
	if n, err := w.store.DeadLetterCount(t.Context()); err != nil || n != 0 {
		t.Fatalf("%d rows, %v", n, err)
	}
	var kept json.RawMessage
	sealing.Record = func(tx *store.Tx, sealed json.RawMessage) error {
		kept = sealed
		return tx.Bury(&store.DeadLetter{Kind: "sealed", Body: sealed})
	}
	sealed, err := w.crypto.Seal(t.Context(), sealing)
	w.no(err)
	if n, err := w.store.DeadLetterCount(t.Context()); err != nil || n != 1 || string(kept) != string(sealed) {
		t.Errorf("%d rows, %v; %s and %s", n, err, kept, sealed)
	}
	if index := megolmIndex(t, sealed); index != 0 {
		t.Errorf("the message has number %d: the attempt before took one", index)
	}
	if got := w.reads(room, bot, sealed, "1"); got != "kept" {
		t.Errorf("the person read %q", got)
	}
}

// megolmIndex is the number of a message in its session.
func megolmIndex(t *testing.T, sealed json.RawMessage) uint {
	t.Helper()
	var content event.EncryptedEventContent
	if err := json.Unmarshal(sealed, &content); err != nil {
		t.Fatal(err)
	}
	index, err := olmIndex(content.MegolmCiphertext)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// mautrix goes on when it cannot store an Olm session that it has moved: what it then sends, nobody could read after a restart.
func TestSeal_SessionThatCannotBeStored_NothingIsSent(t *testing.T) {
	w, bot, room, _ := prepared(t)
	_, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: w.room(bot), Machine: bot, Type: "m.room.message", Content: message("first")})
	w.no(err)
	before := w.toDevices()
	for _, table := range []string{"crypto_olm_session", "crypto_megolm_outbound_session_shared"} {
		when := map[bool]string{true: "UPDATE", false: "INSERT"}[table == "crypto_olm_session"]
		restore := trigger(t, w.store, when, table, `SELECT RAISE(ABORT, 'no room')`)
		_, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("x")})
		if err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("%s: got %v", table, err)
		}
		if n := w.toDevices(); n != before {
			t.Errorf("%s: %d requests were made", table, n-before)
		}
		restore()
	}
	sealed, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("then")})
	w.no(err)
	if got := w.reads(room, bot, sealed, "1"); got != "then" {
		t.Errorf("the person read %q", got)
	}
}

// Many rooms encrypt and share, to-device messages come in, and groups of jobs fail and run again, all at once.
func TestCrypto_AllAtOnce_NothingBlocksAndAllIsRead(t *testing.T) {
	w, bot, _, _ := prepared(t)
	bob := newPerson(w, "bob") // the bridge would answer over the session of the hand, which the person's client does not know
	h := w.hand(bob, bot)
	rooms := make([]id.RoomID, 6)
	for i := range rooms {
		rooms[i] = w.room(bot)
	}
	for _, room := range rooms { // shares the keys: later the bot may answer with h's session, which alice's own machine does not have
		_, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("first")})
		w.no(err)
	}
	const each = 15
	var mu sync.Mutex
	all := map[id.RoomID][]json.RawMessage{}
	var work sync.WaitGroup
	for _, room := range rooms {
		for worker := range 2 { // two want the same room's lock
			work.Go(func() {
				for i := range each {
					sealed, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message(fmt.Sprint(worker, " ", i))})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					all[room] = append(all[room], sealed)
					mu.Unlock()
				}
			})
		}
	}
	work.Go(func() { // Olm
		for i := range each {
			key := w.roomKey(rooms[0])
			if err := w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))); err != nil {
				t.Error(err)
			}
			opened, err := w.crypto.Open(t.Context(), bob.sealedWith(key, fmt.Sprint("$olm", i), "one of many"), bot)
			if err != nil || text(opened) != "one of many" {
				t.Errorf("%q, %v", text(opened), err)
			}
		}
	})
	work.Go(func() { // jobs that fail
		for range each {
			_ = w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error {
				return errors.Join(tx.SetEncrypted("!another", true), errors.New("no"))
			})
		}
	})
	work.Wait()
	for _, room := range rooms {
		seen := map[uint]bool{}
		for _, sealed := range all[room] {
			if index := megolmIndex(t, sealed); seen[index] {
				t.Errorf("number %d is there twice in %s", index, room)
			} else {
				seen[index] = true
			}
		}
		if len(seen) != 2*each {
			t.Errorf("%d messages in %s, want %d", len(seen), room, 2*each)
		}
	}
	w.alice.sync("")
	for i, sealed := range all[rooms[1]] {
		ev, err := w.alice.encryptedEvent(rooms[1], fmt.Sprint("$r", i), object(sealed)).Decode()
		w.no(err)
		ev.Sender = bot
		if _, err := w.alice.olm.DecryptMegolmEvent(t.Context(), ev); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
}

func TestShare_OwnGhosts_AreLeftOutButTheReader(t *testing.T) {
	w, bot, _, _ := prepared(t)
	ann, ben := w.ghost("ann"), w.ghost("ben")
	for _, user := range []id.UserID{ann, ben} {
		w.no(w.crypto.Prepare(t.Context(), user))
	}
	for _, c := range []struct {
		name   string
		users  []id.UserID
		seals  id.UserID
		reader id.UserID
	}{
		{"with the bot", []id.UserID{bot, ann, ben}, ben, bot},
		{"without it", []id.UserID{ann, ben}, ben, ann},
		{"alone", []id.UserID{ben}, ben, ben},
	} {
		room := w.room(c.users...)
		w.settleKeys()
		w.given.Clear()
		sealed, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: c.seals, Type: "m.room.message", Content: message(c.name)})
		w.no(err)
		w.settleKeys()
		w.given.Range(func(user, _ any) bool {
			if user != c.reader || c.reader == c.seals {
				t.Errorf("%s: %s was given a key", c.name, user)
			}
			return true
		})
		got := w.alice.encryptedEvent(room, "$"+c.name, object(sealed))
		got.Sender, got.Raw = c.seals, bytes.ReplaceAll(got.Raw, []byte(w.alice.ID()), []byte(c.seals))
		if opened, err := w.crypto.Open(t.Context(), got, c.reader); err != nil || text(opened) != c.name {
			t.Errorf("%s: %s reads %q, %v", c.name, c.reader, text(opened), err)
		}
		if got := w.reads(room, c.seals, sealed, c.name); got != c.name {
			t.Errorf("%s: the person reads %q", c.name, got)
		}
	}
}

// settleKeys waits until the homeserver has sent what it has, and all about keys was taken in.
func (w *world) settleKeys() {
	w.t.Helper()
	w.no(w.hs.Settle(w.t.Context()))
	for {
		if waiting, _ := w.as.Backlog(); waiting == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// jobs is how many jobs the store has committed.
func (w *world) jobs() int {
	w.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	w.no(registry.Register(w.store.Collector()))
	families, err := registry.Gather()
	w.no(err)
	for _, family := range families {
		if strings.HasSuffix(family.GetName(), "commit_jobs_total") {
			return int(family.GetMetric()[0].GetCounter().GetValue())
		}
	}
	w.t.Fatal("jobs are not counted")
	return 0
}

// Each device has an Olm session that moves, and is noted down: what is written for all of them waits for the disk together.
func TestShare_WithManyDevices_WritesForAllOfThemAtOnce(t *testing.T) {
	w, bot, room, _ := prepared(t)
	people := []*person{w.alice}
	for i := range 12 {
		p := newPerson(w, fmt.Sprint("p", i))
		_, err := p.Join(t.Context(), string(room))
		w.no(err)
		people = append(people, p)
	}
	w.settleKeys()
	seal := func() json.RawMessage {
		sealed, err := w.crypto.Seal(t.Context(), crypto.Sealing{Room: room, Machine: bot, Type: "m.room.message", Content: message("for all")})
		w.no(err)
		return sealed
	}
	seal()
	db, err := w.store.Foreign()
	w.no(err)
	storetest.Commit(t, w.store, func(tx *store.Tx) error { // so that a key is shared again, over the sessions that are there
		_, err := db.Exec(tx.Context(t.Context()), `DELETE FROM crypto_megolm_outbound_session`)
		return err
	})
	before := w.jobs()
	sealed := seal()
	if n := w.jobs() - before; n >= len(people) {
		t.Errorf("%d jobs for %d devices", n, len(people))
	}
	for i, p := range people {
		p.sync(room)
		ev, err := p.encryptedEvent(room, fmt.Sprint("$", i), object(sealed)).Decode()
		w.no(err)
		ev.Sender = bot
		if read, err := p.olm.DecryptMegolmEvent(t.Context(), ev); err != nil || text(read) != "for all" {
			t.Errorf("%s: %q, %v", p.ID(), text(read), err)
		}
	}
}
