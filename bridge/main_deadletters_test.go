package bridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// letters runs the command deadletters on the bridge's database, which the bridge may hold meanwhile.
func (c *crossing) letters(args ...string) (status int, out string) {
	c.Helper()
	config := filepath.Join(c.TempDir(), "config.yaml")
	text := fmt.Sprintf("homeserver: {address: %q, domain: %q}\ndatabase: %q\n", c.b.Config.Homeserver.Address, c.b.Config.Homeserver.Domain, c.b.Config.Database)
	c.ok(os.WriteFile(config, []byte(text), 0o600))
	if action := args[0]; (action == "replay" || action == "drop") && !slices.Contains(args, "-wait") {
		args = append(args, "-wait", "100s") // the machine may be busy
	}
	return lettersIn(c.net, config, args...)
}

func lettersIn(n bridge.Network, config string, args ...string) (status int, out string) {
	var both bytes.Buffer
	status = bridge.RunCommand(n, append([]string{"deadletters"}, append(args, "-config", config)...), nil, nil, &both, &both)
	return status, both.String()
}

// wantLetters runs the command and looks for texts in what it prints.
func (c *crossing) wantLetters(status int, texts []string, args ...string) string {
	c.Helper()
	got, out := c.letters(args...)
	if got != status {
		c.Errorf("%q ended with %d, want %d:\n%s", args, got, status, out)
	}
	for _, text := range texts {
		if !strings.Contains(out, text) {
			c.Errorf("%q does not say %q:\n%s", args, text, out)
		}
	}
	return out
}

// dies sends a message that the network refuses.
func (c *crossing) dies(text string, cause error) {
	c.Helper()
	before := len(c.deadLetters(0))
	c.net.FailSends(cause)
	c.says(text)
	c.deadLetters(before + 1)
}

var errBanned = bridge.Permanent(errors.New("you are banned"))

// onEngines runs a test on a bridge with each database.
func onEngines(t *testing.T, test func(c *crossing)) {
	t.Run("SQLite", func(t *testing.T) { test(newCrossing(t)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		server := storetest.PostgresServer(t)
		test(newCrossing(t, func(cfg *bridge.Config) { cfg.Database = server(t) }))
	})
}

func TestDeadLettersCommand_BesideARunningBridge_ShowsAndReplaysAndFencesNobody(t *testing.T) {
	onEngines(t, func(c *crossing) {
		c.wantLetters(0, []string{"There are no dead letters."}, "list")
		c.dies("first", errBanned)
		c.dies("second", bridge.InDoubt(errors.New("the connection broke")))
		out := c.wantLetters(0, []string{"ID", "ATTEMPTS", "pdu", string(c.room), "you are banned", "the connection broke", " ago)"}, "list")
		if strings.Index(out, "the connection broke") > strings.Index(out, "you are banned") {
			c.Errorf("the newest is not the first:\n%s", out)
		}
		c.wantLetters(0, []string{"pdu: an event of a Matrix room", string(c.room), "you are banned", "attempts    1\n", "\n  \"content\": {\n    \"body\": \"first\""}, "show", "1")
		c.wantLetters(0, []string{"in doubt    it may have arrived"}, "show", "2")
		c.wantLetters(0, []string{"1  done\n"}, "replay", "1")
		c.arrives("first")
		c.wantLetters(0, []string{"2  note: it may have arrived", "2  done\n"}, "replay", "2")
		c.arrives("second")
		c.wantLetters(1, []string{"1  there is no dead letter 1"}, "replay", "1")
		c.wantLetters(1, []string{"there is no dead letter 1"}, "show", "1")
		c.dies("third", errBanned)
		c.wantLetters(1, []string{"3  dropped\n", "77  there is no dead letter 77", "2 dead letters: 1 dropped, 1 not there"}, "drop", "3", "77")
		if dead := c.deadLetters(0); len(dead) != 0 {
			c.Errorf("dead letters: %+v", dead)
		}
		// The bridge still holds its store.
		c.says("last")
		c.arrives("last")
		if sent := c.net.Sent(); len(sent) != 3 {
			c.Errorf("the network got %+v", sent)
		}
	})
}

func TestDeadLettersCommand_BesideAStoppedBridge_IsCarriedOutAtTheNextStart(t *testing.T) {
	onEngines(t, func(c *crossing) {
		c.dies("first", errBanned)
		c.dies("second", errBanned)
		c.b.Stop()
		c.wantLetters(0, []string{"you are banned"}, "list")
		c.wantLetters(0, []string{"1  waits for the bridge"}, "replay", "1", "-wait", "1ms")
		c.wantLetters(0, []string{"2  waits for the bridge"}, "drop", "2", "-wait", "1ms")
		c.wantLetters(0, []string{"asked for   replay, ", "; the bridge has not taken it up yet"}, "show", "1")
		c.b.Start()
		c.arrives("first")
		c.ok(c.untilDead(0))
		if sent := c.net.Sent(); len(sent) != 1 {
			c.Errorf("the network got %+v", sent)
		}
	})
}

// buries writes dead letters while the bridge is stopped.
func (c *crossing) buries(letters ...store.DeadLetter) {
	c.Helper()
	s := must(store.Open(c.ctx, c.b.Config.Database, store.Options{}))(c.T)
	defer s.Close()
	c.ok(s.Commit(c.ctx, s.Epoch(), func(tx *store.Tx) error {
		for i := range letters {
			if err := tx.Bury(&letters[i]); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (c *crossing) rawMessage(id, text string) string {
	return fmt.Sprintf(`{"type":"m.room.message","event_id":%q,"room_id":%q,"sender":%q,"content":{"msgtype":"m.text","body":%q}}`, id, c.room, c.alice.ID(), text)
}

func TestDeadLettersCommand_BodyThatCannotBeRead_StaysAndOneThatCanIsDelivered(t *testing.T) {
	c := newCrossing(t)
	c.b.Stop()
	c.buries(store.DeadLetter{Kind: "body", Body: []byte("nonsense")}, store.DeadLetter{Kind: "body", Body: []byte(`{"events":[5,` + c.rawMessage("$good", "good") + `]}`)})
	c.b.Start()
	c.wantLetters(1, []string{"1  failed again: it is not a JSON object"}, "replay", "1")
	c.wantLetters(0, []string{"it is not a JSON object", "\n\nnonsense\n"}, "show", "1")
	c.wantLetters(1, []string{"2  done in part: parts of it cannot be taken in, and are dead letters of their own: 3"}, "replay", "2")
	c.arrives("good")
}

func TestDeadLettersCommand_LetterGoneBeforeTheBridgeStarts_IsAnsweredToo(t *testing.T) {
	c := newCrossing(t)
	c.dies("first", errBanned)
	c.b.Stop()
	c.wantLetters(0, []string{"1  waits for the bridge"}, "replay", "1", "-wait", "1ms")
	// Its time is over meanwhile.
	s := must(store.Open(c.ctx, c.b.Config.Database, store.Options{Retention: store.Retention{DeadLetters: time.Nanosecond}}))(t)
	c.ok(s.Prune(c.ctx))
	c.ok(s.Close())
	c.b.Start()
	v := must(store.Visit(c.ctx, c.b.Config.Database))(t)
	defer v.Close()
	for {
		answer := must(v.Answer(c.ctx, 1))(t)
		if answer.Result == store.ResultMissing {
			break
		} else if answer.Result != "" {
			t.Fatalf("the answer is %+v", answer)
		}
		select {
		case <-c.ctx.Done():
			t.Fatal("there is no answer")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// untilDead waits until there are exactly so many dead letters.
func (c *crossing) untilDead(n int) error {
	for {
		dead, err := c.b.DeadLetters(c.ctx, 0)
		if err != nil || len(dead) == n {
			return err
		}
		select {
		case <-c.ctx.Done():
			return fmt.Errorf("there are %d dead letters, not %d", len(dead), n)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestDeadLettersCommand_FailsAgain_SaysWhyAndWhichItIsNow(t *testing.T) {
	c := newCrossing(t)
	c.dies("first", errBanned)
	c.net.FailSends(bridge.Permanent(errors.New("still banned")))
	c.wantLetters(1, []string{"1  failed again, and is dead letter 2 now: still banned"}, "replay", "1")
	c.net.FailSends(bridge.ErrOffline)
	c.wantLetters(0, []string{"2  waits in its lane, and is tried again by itself: not connected to the network"}, "replay", "2")
	c.net.Sink().Online()
	c.arrives("first")
}

func TestDeadLettersCommand_ReplayOfTheOutbox_IsTheSameRequest(t *testing.T) {
	c := newCrossing(t)
	c.ok(c.net.Say(c.ctx, lobby, "bob", "hi"))
	c.sees(bridgetest.Message(c.bob(), "hi"))
	sending := regexp.MustCompile(`/send/m\.room\.message/`)
	c.hs.Fault(bridgetest.Fault{Path: sending, Status: http.StatusRequestEntityTooLarge, ErrCode: "M_TOO_LARGE"})
	c.ok(c.net.Say(c.ctx, lobby, "bob", "is it too large?"))
	c.deadLetters(1)
	c.wantLetters(0, []string{"outbox: something from the network", "what        message", `"body": "is it too large?"`}, "show", "1")
	c.hs.Fault(bridgetest.Fault{Path: sending, Status: http.StatusRequestEntityTooLarge, ErrCode: "M_TOO_LARGE"})
	c.wantLetters(1, []string{"1  failed again, and is dead letter 2 now: ", "M_TOO_LARGE"}, "replay", "1")
	c.wantLetters(0, []string{"2  done"}, "replay", "2")
	c.sees(bridgetest.Message(c.bob(), "is it too large?"))
	paths := map[string]int{}
	for _, r := range c.hs.Requests(func(r bridgetest.Request) bool {
		return r.Query.Get("user_id") == string(c.bob()) && sending.MatchString(r.Path)
	}) {
		paths[r.Path]++
	}
	for path, n := range paths {
		if n != 1 && n != 3 || len(paths) != 2 { // "hi" once, and the other three times by one transaction ID
			t.Errorf("%d requests %s", n, path)
		}
	}
}

func TestDeadLettersCommand_All_TakesThoseThatAreMeant(t *testing.T) {
	c := newCrossing(t)
	for i := range 3 {
		c.dies(fmt.Sprint("message ", i), errBanned)
	}
	c.hs.Fault(bridgetest.Fault{Path: regexp.MustCompile(`/send/m\.room\.message/`), Status: http.StatusRequestEntityTooLarge, ErrCode: "M_TOO_LARGE"})
	c.ok(c.net.Say(c.ctx, lobby, "bob", "refused"))
	c.deadLetters(4)
	c.wantLetters(0, []string{"There is nothing to replay."}, "replay", "-all", "-room", "!other:x")
	c.wantLetters(0, []string{"None of this kind and room (of 4 dead letters in all)."}, "list", "-room", "!other:x")
	c.wantLetters(0, []string{"There are more (4 dead letters in all); the next page: -after 3"}, "list", "-limit", "2")
	if out := c.wantLetters(0, nil, "list", "-limit", "2", "-after", "3"); strings.Count(out, "pdu") != 2 {
		t.Errorf("the second page:\n%s", out)
	}
	if out := c.wantLetters(0, []string{"M_TOO_LARGE"}, "list", "-kind", "outbox"); strings.Contains(out, "banned") {
		t.Errorf("the kind outbox:\n%s", out)
	}
	c.wantLetters(0, []string{"1  done", "2  done", "3  done", "3 dead letters: 3 done"}, "replay", "-all", "-kind", "pdu", "-room", string(c.room))
	var texts []string
	for _, m := range c.net.Sent() {
		if m.Kind == bridge.KindText {
			texts = append(texts, m.Text)
		}
	}
	if got := strings.Join(texts, ", "); got != "message 0, message 1, message 2" {
		t.Errorf("the network got: %s", got)
	}
	c.wantLetters(2, []string{"this forgets 1 dead letter for good; if you mean it, write -yes as well"}, "drop", "-all")
	c.wantLetters(0, []string{"4  dropped"}, "drop", "-all", "-yes")
	c.wantLetters(0, []string{"There are no dead letters."}, "list")
}

func TestDeadLettersCommand_JSON_IsOneObjectALine(t *testing.T) {
	c := newCrossing(t)
	c.dies("first", errBanned)
	c.dies("second", bridge.InDoubt(errors.New("gone")))
	lines := strings.Split(strings.TrimSpace(c.wantLetters(0, nil, "list", "-json", "-oldest")), "\n")
	if len(lines) != 2 {
		t.Fatalf("got %q", lines)
	}
	for i, want := range []map[string]any{{"cause": "you are banned", "in_doubt": nil}, {"cause": "gone", "in_doubt": true}} {
		var got map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &got); err != nil {
			t.Fatal(err)
		}
		if got["id"] != float64(i+1) || got["kind"] != "pdu" || got["room"] != string(c.room) || got["cause"] != want["cause"] || got["in_doubt"] != want["in_doubt"] {
			t.Errorf("line %d is %v", i+1, got)
		}
	}
}

func TestDeadLettersCommand_Mistakes_NameTheMend(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	database := filepath.Join(t.TempDir(), "none.db")
	if err := os.WriteFile(config, []byte("homeserver: {address: \"http://localhost:1\", domain: x.test}\ndatabase: \"sqlite:"+database+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]struct {
		status int
		text   string
	}{
		"":                         {2, "replay ID…"},
		"help":                     {0, "drop ID…"},
		"lst":                      {2, `there is no subcommand "lst"; write list`},
		"list x":                   {2, `list takes no argument "x"`},
		"list -kind pdus":          {2, `there is no kind "pdus"; write -kind pdu`},
		"list -kind somethingelse": {2, "write one of pdu, outbox"},
		"list -limit 0":            {2, "-limit must be 1 or more"},
		"show":                     {2, "say which"},
		"show x":                   {2, `"x" is not the ID of a dead letter`},
		"replay 0":                 {2, `"0" is not the ID of a dead letter`},
		"replay":                   {2, "say which: deadletters replay ID…, or -all"},
		"replay 1 -all":            {2, "write either IDs or -all"},
		"drop 1 -kind pdu":         {2, "-kind and -room go with -all"},
		"drop -all -kind x":        {2, `there is no kind "x"`},
		"list":                     {1, "the bridge has not run yet"},
		"replay 1":                 {1, "the bridge has not run yet"},
	} {
		status, out := lettersIn(bridgetest.NewNetwork(), config, strings.Fields(args)...)
		if args == "" || args == "help" { // these take no -config
			status, out = lettersIn(bridgetest.NewNetwork(), config, strings.Fields(args+" help")...)
		}
		if status != want.status && args != "" || !strings.Contains(out, want.text) {
			t.Errorf("%q: status %d,\n%s\nwant %d and %q", args, status, out, want.status, want.text)
		}
	}
	if _, err := os.Stat(database); err == nil {
		t.Error("a database was made")
	}
}

func TestDeadLettersCommand_UnreachableDatabase_TellsNoPassword(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	text := "homeserver: {address: \"http://localhost:1\", domain: x.test}\ndatabase: \"postgres://u:hunter2@127.0.0.1:1/d?sslmode=disable\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out := lettersIn(bridgetest.NewNetwork(), config, "list"); status != 1 || strings.Contains(out, "hunter2") || !strings.Contains(out, "127.0.0.1:1") {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestDeadLettersCommand_ManyAtOnce_AreCountedAndAllReplayed(t *testing.T) {
	c := newCrossing(t)
	c.b.Stop()
	const n = 2100
	letters := make([]store.DeadLetter, n)
	for i := range letters {
		id := fmt.Sprint("$many", i)
		letters[i] = store.DeadLetter{Kind: "pdu", Lane: "room:" + string(c.room), Key: id, Attempts: 1, Doubt: i%2 == 0, Body: []byte(c.rawMessage(id, fmt.Sprint("many ", i)))}
	}
	c.buries(letters...)
	c.b.Start()
	out := c.wantLetters(0, []string{"note: 1050 of them may have arrived before", "2100 dead letters: 2100 done"}, "replay", "-all")
	if lines := strings.Count(out, "\n"); lines != 2 {
		t.Errorf("%d lines:\n%s", lines, out)
	}
	sent := c.net.Sent()
	if len(sent) != n {
		t.Fatalf("the network got %d messages", len(sent))
	}
	for i, m := range sent {
		if m.Text != fmt.Sprint("many ", i) {
			t.Fatalf("message %d is %q", i, m.Text)
		}
	}
}
