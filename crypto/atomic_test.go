//go:build goolm

package crypto_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// steps are the writes of a to-device message that brings a room key, in the order in which they are made: a first message of an
// Olm session makes all of them, a later one those without the account.
var steps = []struct{ name, when, table string }{
	{"session", "INSERT", "crypto_olm_session"},
	{"account", "UPDATE", "crypto_account"},
	{"hash", "INSERT", "crypto_olm_message_hash"},
	{"room key", "INSERT", "crypto_megolm_inbound_session"},
	{"later session", "UPDATE", "crypto_olm_session"},
}

// trigger has the database do something when a table is written to. nothing takes it away again.
func trigger(t *testing.T, s *store.Store, when, table, action string) (nothing func()) {
	t.Helper()
	run := func(s *store.Store, statement string) {
		t.Helper()
		db, err := s.Foreign()
		if err != nil {
			t.Fatal(err)
		}
		storetest.Commit(t, s, func(tx *store.Tx) error {
			_, err := db.Exec(tx.Context(t.Context()), statement)
			return err
		})
	}
	run(s, fmt.Sprintf(`CREATE TRIGGER in_the_way BEFORE %s ON %s BEGIN %s; END`, when, table, action))
	return func() { run(s, `DROP TRIGGER in_the_way`) }
}

func TestOlm_WriteThatFails_LeavesNothingOfTheMessage(t *testing.T) {
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			w, _, room, h := prepared(t)
			first := w.roomKey(room)
			if step.name == "later session" {
				w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(first))))
			}
			key := w.roomKey(room)
			ev := h.encrypt(h.payload(key))
			restore := trigger(t, w.store, step.when, step.table, `SELECT RAISE(ABORT, 'no room')`)
			for range 2 { // the second time over what the first has left in memory
				if err := w.crypto.HandleKeys(t.Context(), ev); err == nil || appservice.IsPermanent(err) {
					t.Fatalf("got %v, want an error that passes", err)
				}
			}
			restore()
			w.readsOnce(h, ev, w.alice.sealedWith(key, "$1", "whole"))
		})
	}
}

// readsOnce takes in a room key and reads what was encrypted with it, and shows that the session with the sender goes on.
func (w *world) readsOnce(h *hand, key, sealed *appservice.Event) {
	w.t.Helper()
	ctx := w.t.Context()
	for range 2 {
		if err := w.crypto.HandleKeys(ctx, key); err != nil {
			w.t.Fatalf("the message again: %v", err)
		}
	}
	if opened, err := w.crypto.Open(ctx, sealed, h.to); err != nil || text(opened) != "whole" {
		w.t.Errorf("%q, %v", text(opened), err)
	}
	next := w.roomKey(sealed.RoomID)
	w.no(w.crypto.HandleKeys(ctx, h.encrypt(h.payload(next))))
	if opened, err := w.crypto.Open(ctx, w.alice.sealedWith(next, "$2", "next"), h.to); err != nil || text(opened) != "next" {
		w.t.Errorf("the next key: %q, %v", text(opened), err)
	}
	db, err := w.store.Foreign()
	w.no(err)
	var sessions, hashes int
	w.no(db.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM crypto_olm_session), (SELECT COUNT(*) FROM crypto_olm_message_hash)`).Scan(&sessions, &hashes))
	if sessions != 1 {
		w.t.Errorf("there are %d Olm sessions, want 1", sessions)
	}
}

// Others whose jobs share the commit with one that fails run again: nothing of theirs is lost, and nothing is there twice.
func TestOlm_JobThatRunsAgain_MovesTheSessionOnce(t *testing.T) {
	w, bot, room, h := prepared(t)
	runs := 0
	for round := range 10 {
		key := w.roomKey(room)
		ev := h.encrypt(h.payload(key))
		started, ended := make(chan struct{}), make(chan error, 2)
		begun := started
		go func() {
			ended <- w.store.Commit(t.Context(), w.store.Epoch(), func(*store.Tx) error { // so that the others gather
				if runs++; started != nil {
					close(started)
					started = nil
					time.Sleep(30 * time.Millisecond)
				}
				return nil
			})
		}()
		<-begun
		go func() { ended <- w.crypto.HandleKeys(t.Context(), ev) }()
		time.Sleep(10 * time.Millisecond)
		fails := errors.New("one of the group fails")
		err := w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error {
			return errors.Join(tx.SetEncrypted("!another", true), fails)
		})
		if !errors.Is(err, fails) {
			t.Fatal(err)
		}
		for range 2 {
			w.no(<-ended)
		}
		if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, fmt.Sprint("$", round), "whole"), bot); err != nil || text(opened) != "whole" {
			t.Fatalf("round %d: %q, %v", round, text(opened), err)
		}
	}
	if runs == 10 {
		t.Error("no job ran again: the test shows nothing")
	}
}

const victimEnv = "TRESTLE_TEST_KEYS_VICTIM"

// victim is what the child process is told.
type victimOrder struct {
	Store  string
	Server string
	Event  appservice.Event
	Seal   *crypto.Sealing
}

// The child process takes in a to-device message, or encrypts, says when it begins and when it is done, and waits to be killed.
func init() {
	if os.Getenv(victimEnv) == "" {
		return
	}
	if err := victim(); err != nil {
		fmt.Println("failed:", err)
	}
	os.Exit(1)
}

func victim() error {
	ctx := context.Background()
	var order victimOrder
	if err := json.NewDecoder(os.Stdin).Decode(&order); err != nil {
		return err
	}
	s, err := store.Open(ctx, order.Store, store.Options{})
	if err != nil {
		return err
	}
	registration, err := appservice.Generate(appservice.GenerateOptions{
		ID: "test", URL: "http://127.0.0.1:9", Domain: order.Server, SenderLocalpart: "testbot", GhostPrefix: "test_",
	})
	if err != nil {
		return err
	}
	as, err := appservice.New(appservice.Config{
		Registration: registration, HomeserverURL: "http://127.0.0.1:9", ServerName: order.Server, Store: s, Handler: nobody{},
	})
	if err != nil {
		return err
	}
	c, err := crypto.New(ctx, crypto.Options{Store: s, AS: as, PickleKey: pickleKey})
	if err != nil {
		return err
	}
	fmt.Println("begins")
	if order.Seal == nil {
		err = c.HandleKeys(ctx, &order.Event)
	} else {
		order.Seal.Record = func(tx *store.Tx, sealed json.RawMessage) error {
			fmt.Printf("sealed %s\n", sealed)
			return tx.Bury(&store.DeadLetter{Kind: "sealed", Body: sealed})
		}
		_, err = c.Seal(ctx, *order.Seal)
	}
	if err != nil {
		return err
	}
	fmt.Println("done")
	time.Sleep(time.Minute)
	return nil
}

// killed runs a child that is killed in the middle of a write to the table, or, without one, when it is done. It gives what
// the child said.
func killed(t *testing.T, order victimOrder, inTheMiddle bool) (said []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if err := json.NewEncoder(in).Encode(order); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	lines := bufio.NewScanner(io.LimitReader(out, 1<<20))
	for lines.Scan() {
		said = append(said, lines.Text())
		if strings.HasPrefix(lines.Text(), "failed") {
			t.Fatal(lines.Text())
		}
		if inTheMiddle && lines.Text() == "begins" {
			time.Sleep(500 * time.Millisecond) // it is in the trigger, which does not end
			return said
		}
		if lines.Text() == "done" {
			return said
		}
	}
	t.Fatalf("the child ended by itself: %q", said)
	return nil
}

// forever keeps the database busy until the process is killed.
const forever = `SELECT COUNT(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000) SELECT i FROM n)`

func TestOlm_ProcessKilledBetweenAnyTwoWrites_LosesAndDoublesNothing(t *testing.T) {
	for _, step := range append(steps, struct{ name, when, table string }{name: "done"}) {
		t.Run(step.name, func(t *testing.T) {
			uri := storetest.SQLite(t)
			w := newWorldOn(t, storetest.Open(t, uri, store.Options{}))
			bot := w.as.Bot().UserID()
			w.no(w.crypto.Prepare(t.Context(), bot))
			room := w.room(bot)
			h := w.hand(w.alice, bot)
			if step.name == "later session" {
				w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room)))))
			}
			key := w.roomKey(room)
			ev := h.encrypt(h.payload(key))
			w.stopped()
			if step.table != "" { // once nothing here writes any more: it would hold this process as well
				s, err := store.Open(t.Context(), uri, store.Options{})
				w.no(err)
				trigger(t, s, step.when, step.table, forever)
				w.no(s.Close())
			}
			killed(t, victimOrder{Store: uri, Server: w.hs.Domain(), Event: appservice.Event{
				Kind: ev.Kind, Type: ev.Type, Sender: ev.Sender, ToUserID: ev.ToUserID, ToDeviceID: ev.ToDeviceID, Raw: ev.Raw}}, step.table != "")
			w.again(uri)
			if step.table != "" {
				db, err := w.store.Foreign()
				w.no(err)
				storetest.Commit(t, w.store, func(tx *store.Tx) error {
					_, err := db.Exec(tx.Context(t.Context()), `DROP TRIGGER in_the_way`)
					return err
				})
			}
			w.readsOnce(h, ev, w.alice.sealedWith(key, "$1", "whole"))
		})
	}
}

// stopped ends what has the store open; again begins anew.
func (w *world) stopped() {
	w.t.Helper()
	w.no(w.as.Stop(context.Background()))
	w.no(w.crypto.Close())
	w.crypto = nil
	w.no(w.store.Close())
}

func (w *world) again(uri string) {
	w.t.Helper()
	w.store = storetest.Open(w.t, uri, store.Options{})
	w.start()
}
