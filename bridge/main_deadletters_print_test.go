package bridge

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

func TestShownBody_IsTheSameJSONAndSteersNoTerminal(t *testing.T) {
	for _, body := range []string{
		`{"z":1,"a":[1,2],"a":"again","n":1e400,"s":"x\u0000\ud800"}`, "{\"s\":\"\u009b31m\u202eevil\x7f \U000e0001 ü🎉\"}", `5`, `"text"`,
	} {
		shown := string(shownBody([]byte(body), false))
		for _, r := range shown {
			if r != '\n' && r != ' ' && printable(string(r)) != string(r) {
				t.Errorf("%q shows %q", body, r)
			}
		}
		var before, after any
		before, after = nil, nil
		if strings.Contains(body, "1e400") { // no Go number holds it, but it is shown
			if !strings.Contains(shown, `"n": 1e400`) || strings.Index(shown, `"z"`) > strings.Index(shown, `"a"`) || !strings.Contains(shown, `\ud800`) {
				t.Errorf("shown as\n%s", shown)
			}
			continue
		}
		if err := json.Unmarshal([]byte(body), &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(shown), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("%q became %q, %v", body, shown, err)
		}
	}
}

func TestShownBody_ThatIsNotJSON_IsShownAsItIs(t *testing.T) {
	for body, onTerminal := range map[string]string{
		"nonsense":                 "nonsense",
		"a\x1b[31mb\xff\x00\nc\td": `a\x1b[31mb\xff\x00` + "\nc\td",
		"{\"a\":\"\xff\"}":         `{"a":"\xff"}`,
		"":                         "",
	} {
		if got := string(shownBody([]byte(body), false)); got != body {
			t.Errorf("%q became %q", body, got)
		}
		if got := string(shownBody([]byte(body), true)); got != onTerminal {
			t.Errorf("%q is %q on a terminal, want %q", body, got, onTerminal)
		}
	}
}

func TestPrintLetters_TextOfOthers_StaysOnItsLine(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	err := printLetters(&out, []store.DeadLetter{{
		ID: 7, Kind: "pdu", Lane: "room:!a\x1b[2J:x", Key: "$\n", Cause: strings.Repeat("ü", 500) + "\r", Created: now.Add(-3 * time.Hour),
	}}, now)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], `!a\x1b[2J:x`) || !strings.Contains(lines[1], `$\n`) || !strings.Contains(lines[1], "(3 h ago)") ||
		!strings.HasSuffix(lines[1], strings.Repeat("ü", listedCause)+"…") {
		t.Errorf("got %q", out.String())
	}
}

func TestPrintLetters_WhatStandsInAnotherColumn_TakesNoPlaceOfTheCause(t *testing.T) {
	room, event := "!"+strings.Repeat("r", 30)+":x", "$"+strings.Repeat("e", 43)
	var out strings.Builder
	err := printLetters(&out, []store.DeadLetter{
		{ID: 7, Kind: "pdu", Lane: "room:" + room, Key: event, Cause: "decrypt " + event + " of @bob:x in " + room + ": the sending device is not trusted"},
		{ID: 8, Kind: "body", Cause: "no JSON"},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "decrypt … of @bob:x in …: the sending device is not trusted\n") || !strings.HasSuffix(got, " no JSON\n") {
		t.Errorf("got %q", got)
	}
}

func TestAge_IsOneWord(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s ago", 59 * time.Second: "59 s ago", 61 * time.Minute: "1 h ago", 47 * time.Hour: "47 h ago", 49 * time.Hour: "2 days ago",
		-time.Hour: "in the future: is the clock right?",
	} {
		if got := age(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// Synapse counts transactions, and a cause has numbers of its own.
func TestDeadLetters_CauseWithTheNumberOfItsTransactionInIt_IsWhole(t *testing.T) {
	const cause = "the body of a transaction is not a JSON object: unexpected EOF after offset 1523"
	if got := withoutOthers(cause, "5", "", "an"); got != cause {
		t.Errorf("it says: %s", got)
	}
}
