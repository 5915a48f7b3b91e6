package bridge

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trestle-bridge/trestle/store"
)

const (
	listedCause = 100 // runes of a cause in a list
	letterTime  = "2006-01-02 15:04:05"
	// shortestID is how long something is that can be nothing else.
	shortestID = 12
)

// withoutOthers leaves out of a cause what stands in other columns, so that the place that it has is for what went wrong.
func withoutOthers(cause string, others ...string) string {
	for _, other := range others {
		if len(other) >= shortestID { // what is shorter, as the number of a transaction, may be in anything
			cause = strings.ReplaceAll(cause, other, "…")
		}
	}
	return cause
}

// printLetters prints a table; nothing when there are none.
func printLetters(out io.Writer, letters []store.DeadLetter, now time.Time) error {
	if len(letters) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tWHEN\tKIND\tROOM OR LANE\tEVENT\tATTEMPTS\tCAUSE")
	for i := range letters {
		d := &letters[i]
		cause := []rune(withoutOthers(d.Cause, d.Key, roomOf(d.Lane)))
		if len(cause) > listedCause {
			cause = append(cause[:listedCause], '…')
		}
		attempts := fmt.Sprint(d.Attempts)
		if d.Doubt {
			attempts += " in doubt"
		}
		fmt.Fprintf(w, "%d\t%s (%s)\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.Created.Local().Format(letterTime), age(now.Sub(d.Created)), printable(d.Kind),
			orDash(roomOf(d.Lane)), orDash(d.Key), attempts, printable(string(cause)))
	}
	return w.Flush()
}

// listedLetter is a dead letter for programs.
type listedLetter struct {
	ID       int64     `json:"id"`
	Created  time.Time `json:"created"`
	Kind     string    `json:"kind"`
	Lane     string    `json:"lane,omitempty"`
	Room     string    `json:"room,omitempty"`
	Key      string    `json:"key,omitempty"` // the event ID of a pdu; a transaction ID otherwise
	Op       string    `json:"op,omitempty"`
	Attempts int       `json:"attempts"`
	InDoubt  bool      `json:"in_doubt,omitempty"`
	Cause    string    `json:"cause"`
	Size     int       `json:"size"`
}

func printLettersJSON(out io.Writer, letters []store.DeadLetter) error {
	for i := range letters {
		d := &letters[i]
		l := listedLetter{ID: d.ID, Created: d.Created, Kind: d.Kind, Lane: d.Lane, Key: d.Key, Op: d.Op, Attempts: d.Attempts,
			InDoubt: d.Doubt, Cause: d.Cause, Size: d.Size}
		if room := roomOf(d.Lane); strings.HasPrefix(room, "!") {
			l.Room = room
		}
		line, err := json.Marshal(&l)
		if err == nil {
			_, err = fmt.Fprintln(out, escape(string(line), unicode.IsPrint, jsonEscape))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// printLetter prints everything about one.
func printLetter(out io.Writer, d *store.DeadLetter, asked *store.LetterRequest, now time.Time) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-12s%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	kind := d.Kind
	for _, k := range letterKinds {
		if k.name == d.Kind {
			kind += ": " + k.meaning
		}
	}
	line("dead letter", "%d", d.ID)
	line("since", "%s (%s)", d.Created.Local().Format(letterTime+" MST"), age(now.Sub(d.Created)))
	line("kind", "%s", kind)
	switch room := roomOf(d.Lane); {
	case strings.HasPrefix(room, "!"):
		line("room", "%s", room)
	case room != "":
		line("lane", "%s", room)
	}
	switch {
	case d.Key == "":
	case d.Kind == "pdu":
		line("event", "%s", d.Key)
	default:
		line("transaction", "%s", d.Key)
	}
	if d.Op != "" {
		line("what", "%s", d.Op)
	}
	line("attempts", "%d", d.Attempts)
	if d.Doubt {
		line("in doubt", "%s", doubtText(d))
	}
	line("cause", "%s", d.Cause)
	if asked != nil && asked.Answered.IsZero() {
		line("asked for", "%s, %s; the bridge has not taken it up yet", asked.Action, age(now.Sub(asked.Asked)))
	}
	line("body", "%s", count(d.Size, "byte"))
	fmt.Fprintln(out)
	_, _ = out.Write(append(shownBody(d.Body, isTerminal(out)), '\n'))
}

func doubtText(d *store.DeadLetter) string {
	if d.Kind == letterOutbox {
		return "it may be on Matrix already; a replay is the same request, which the homeserver knows for a day after the first"
	}
	return "it may have arrived before it died; a replay sends it again"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

// roomOf gives the room of a lane, or the lane when it is none of a room.
func roomOf(lane string) string { return strings.TrimPrefix(lane, laneOfRoom) }

// age says in a word how long ago something was.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "in the future: is the clock right?"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// printable makes text of others fit for a line on a terminal: what would steer the terminal is shown by its number.
func printable(s string) string {
	return escape(s, unicode.IsPrint, func(r rune) string { return strings.Trim(strconv.QuoteRune(r), "'") })
}

// escape writes the runes that do not pass by their escapes, and bytes that are no UTF-8 by their numbers.
func escape(s string, pass func(r rune) bool, escaped func(r rune) string) string {
	var out strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, s[0])
		case pass(r):
			out.WriteRune(r)
		default:
			out.WriteString(escaped(r))
		}
		s = s[size:]
	}
	return out.String()
}

// shownBody is a body for people: indented JSON with nothing left out, changed or put in order, or else the bytes as they
// are. On a terminal bytes that would steer it are shown by their numbers.
func shownBody(body []byte, terminal bool) []byte {
	isLine := func(r rune) bool { return r == '\n' || r == '\t' || unicode.IsPrint(r) }
	pretty := jsontext.Value(append([]byte{}, body...))
	if err := pretty.Indent(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.WithIndent("  ")); err == nil && utf8.Valid(body) {
		// JSON has escapes of its own, so that this is the same JSON.
		return []byte(escape(string(pretty), isLine, jsonEscape))
	}
	if !terminal {
		return body
	}
	return []byte(escape(string(body), isLine, func(r rune) string { return strings.Trim(strconv.QuoteRune(r), "'") }))
}

func jsonEscape(r rune) string {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}
	return fmt.Sprintf(`\u%04x`, r)
}
