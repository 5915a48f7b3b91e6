package appservice

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
)

// victimStore names, in the environment of a child process, the store of the appservice that it is to be.
const victimStore = "TRESTLE_TEST_VICTIM"

// bridged is a handler whose effect is a row of the outbox: what a bridge makes of an event, committed with its progress.
type bridged struct{}

func (bridged) HandleEvent(_ context.Context, ev *Event) ([]Effect, error) {
	name := string(ev.ID)
	if ev.Kind == store.KindToDevice {
		name = ev.Type
	}
	time.Sleep(time.Millisecond) // so that a kill finds some of them unhandled
	return []Effect{func(tx *store.Tx) error {
		_, err := tx.Enqueue(&store.Outgoing{Lane: ev.Lane, Op: "bridged", TxnID: name, Payload: []byte("{}")})
		return err
	}}, nil
}

func (bridged) HandleEphemeral(context.Context, *Ephemeral) {}

// victim is the child process: an appservice that says where it listens and lives until it is killed, or told on its
// standard input to end when nothing waits any more.
func victim(path string) error {
	s, err := store.Open(context.Background(), "sqlite:"+path, store.Options{Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	as, err := New(Config{
		Registration: testRegistration(), HomeserverURL: "http://127.0.0.1:1", ServerName: testServer,
		Store: s, Handler: bridged{}, Log: zerolog.Nop(), Workers: 2,
	})
	if err != nil {
		return err
	}
	if err := as.Start(context.Background()); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, as) }()
	fmt.Println(l.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	for n := 1; n > 0; n, _ = as.lanes.Len() {
		time.Sleep(time.Millisecond)
	}
	if err := as.Stop(context.Background()); err != nil {
		return err
	}
	return s.Close()
}

// child is a victim that runs.
type child struct {
	*exec.Cmd
	end io.Closer
	url string
}

func startVictim(t *testing.T, path string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(os.Args[0])}
	c.Env = append(os.Environ(), victimStore+"="+path)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() }) // when the test gave up on it
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child did not start: %v", err)
	}
	c.end, c.url = in, "http://"+strings.TrimSpace(line)
	return c
}

// kill is kill -9.
func (c *child) kill() {
	_ = c.Process.Kill()
	_ = c.Wait()
	_ = c.end.Close()
}

func TestA27_KilledRightAfter200_EveryEventAndToDeviceMessageIsBridgedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	put := func(c *child, txnID, body string) bool {
		req, err := http.NewRequest(http.MethodPut, c.url+"/_matrix/app/v1/transactions/"+txnID, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testHSToken)
		resp, err := client.Do(req)
		if err != nil {
			return false // the process ended first: the homeserver knows nothing
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		return err == nil && resp.StatusCode == 200 && string(answer) == "{}"
	}
	const rounds, rooms, each = 6, 3, 12
	var want []string
	var unanswered [][2]string
	for round := range rounds {
		var list []string
		for n := range each {
			for room := range rooms {
				name := fmt.Sprintf("$%d-%d-%02d", room, round, n)
				list = append(list, messageIn(fmt.Sprintf("!r%d:hs.test", room), name))
				want = append(want, name)
			}
		}
		key := fmt.Sprint("m.key.", round)
		want = append(want, key)
		txn := [2]string{fmt.Sprint(round), `{"events":[` + strings.Join(list, ",") + `],"to_device":[` + toDeviceMessage("@irc_a:hs.test", "D", key) + `]}`}
		c := startVictim(t, path)
		for _, old := range unanswered { // as a homeserver does: what was not answered comes again, and first
			if !put(c, old[0], old[1]) {
				t.Fatalf("transaction %s is not taken", old[0])
			}
		}
		unanswered = nil
		if round%2 == 0 {
			if !put(c, txn[0], txn[1]) {
				t.Fatalf("round %d is not taken", round)
			}
			c.kill() // the 200 has been read, and that is all that is known
			continue
		}
		var killed sync.WaitGroup
		killed.Go(func() { time.Sleep(time.Duration(round) * time.Millisecond); c.kill() }) // anywhere in the transaction
		if !put(c, txn[0], txn[1]) {
			unanswered = append(unanswered, txn)
		}
		killed.Wait()
	}
	c := startVictim(t, path)
	for _, old := range unanswered {
		if !put(c, old[0], old[1]) {
			t.Fatalf("transaction %s is not taken", old[0])
		}
	}
	_ = c.end.Close()
	if err := c.Wait(); err != nil {
		t.Fatalf("the child did not end well: %v", err)
	}

	s := openStore(t, path, nil)
	defer s.Close()
	var got []string
	last := map[string]string{}
	err := s.OutgoingBacklog(context.Background(), func(lane string, id int64) error {
		row, err := s.Outgoing(context.Background(), id)
		if err != nil {
			return err
		}
		got = append(got, row.TxnID)
		if strings.HasPrefix(lane, roomLane) && row.TxnID <= last[lane] {
			t.Errorf("in %s, %s came after %s", lane, row.TxnID, last[lane])
		}
		last[lane] = row.TxnID
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("bridged\n%v, want\n%v", got, want)
	}
	if dead, err := s.DeadLetters(context.Background(), store.LetterQuery{Limit: 1000, Bodies: true}); err != nil || len(dead) != 0 {
		t.Errorf("dead letters %+v %v", dead, err)
	}
}

// runVictim is what a child process does instead of the tests.
func runVictim() {
	path := os.Getenv(victimStore)
	if path == "" {
		return
	}
	if err := victim(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
