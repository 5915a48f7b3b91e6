package appservice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
)

// handedOver waits until the handler was given every ephemeral event that came so far, and describes them.
func (f *fixture) handedOver() (list []string) {
	f.t.Helper()
	f.mustPut("mark", `{"ephemeral":[`+present("@mark:hs.test")+`]}`) // the newest is handed over last
	f.rec.waitFor(func() bool { return lastPresence(f.rec.ephemerals) == "@mark:hs.test" })
	f.rec.mu.Lock()
	defer f.rec.mu.Unlock()
	for _, ev := range f.rec.ephemerals {
		if ev.Presence == nil || ev.Presence.UserID != "@mark:hs.test" {
			list = append(list, describe(ev))
		}
	}
	f.rec.ephemerals = nil
	return list
}

func ephemeral(list ...string) string { return `{"ephemeral":[` + strings.Join(list, ",") + `]}` }

func receipt(room, eventID, typ, user, rest string) string {
	return fmt.Sprintf(`{"type":"m.receipt","room_id":%q,"content":{%q:{%q:{%q:{"ts":1%s}}}}}`, room, eventID, typ, user, rest)
}

func TestA3_EphemeralEvents_AreAskedForAllOrNoneAndFilteredHere(t *testing.T) {
	if _, err := ParseRegistration("r.yaml", []byte(strings.Replace(generated(t), "receive_ephemeral: true", "receive_ephemeral: [m.typing]", 1))); err == nil {
		t.Error("a list of types was taken, as if a homeserver knew such a thing")
	}
	f := newFixture(t, nil)
	f.mustPut("1", ephemeral(
		typing("@a:x"), strings.ReplaceAll(typing("@irc_a:hs.test"), testRoom, "!r:x"), present("@a:x"), present("@ircbot:hs.test"), `{"type":"m.mine","room_id":"!r:x","content":{}}`,
		receipt("!r:x", "$1", "m.read", "@a:x", ""), receipt("!r:x", "$1", "m.read.private", "@b:x", ""), receipt("!r:x", "$1", "m.read", "@irc_a:hs.test", "")))
	got := f.handedOver()
	slices.Sort(got)
	if want := []string{`presence @a:x online ""`, `receipts @a:x $1 "" 1`, "typing " + testRoom + " +[@a:x] -[]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestA7_A9_OneFlatListOverAllRooms_IsHandedOverByKindAndRoom(t *testing.T) {
	f := newFixture(t, nil)
	inRoom := func(room string) string { return strings.ReplaceAll(typing("@a:x", "@b:x"), testRoom, room) }
	f.mustPut("1", ephemeral(inRoom("!one:x"), present("@a:x"), receipt("!two:x", "$1", "m.read", "@a:x", ""), inRoom("!two:x"), present("@b:x"),
		receipt("!one:x", "$2", "m.read", "@a:x", ""), `{"type":"m.presence","room_id":"!one:x","sender":"@c:x","content":{"presence":"unavailable"}}`))
	got := f.handedOver()
	slices.Sort(got)
	want := []string{
		`presence @a:x online ""`, `presence @b:x online ""`, `presence @c:x unavailable ""`, `receipts @a:x $1 "" 1`, `receipts @a:x $2 "" 1`,
		`typing !one:x +[@a:x @b:x] -[]`, `typing !two:x +[@a:x @b:x] -[]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestA8_UnknownTypes_AreAnswered200AndLoggedForDebuggingOnly(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, nil, func(c *Config) { c.Log = zerolog.New(zerolog.SyncWriter(&log)) })
	f.mustPut("1", ephemeral(`{"type":"org.example.cursor","room_id":"!r:x","content":{}}`, `{"room_id":"!r:x"}`, typing("@a:x")))
	if got := f.handedOver(); len(got) != 1 {
		t.Errorf("handed over %q", got)
	}
	f.stop()
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "org.example.cursor") {
			if !strings.Contains(line, `"level":"debug"`) {
				t.Errorf("it is logged as %s", line)
			}
			return
		}
	}
	t.Errorf("it is not in the log:\n%s", log.String())
}

func TestA10_TypingOrReceiptWithoutItsRoom_IsDroppedAlone(t *testing.T) {
	f := newFixture(t, nil)
	var list []string
	for _, room := range []string{``, `"room_id":null,`, `"room_id":5,`, `"room_id":"",`, `"room_id":"#r:x",`, `"room_id":"r:x",`, `"room_id":["!r:x"],`, `"room_id":{},`, `"Room_ID":"!r:x",`} {
		list = append(list, `{`+room+`"type":"m.typing","content":{"user_ids":["@lost:x"]}}`,
			`{`+room+`"type":"m.receipt","content":{"$1":{"m.read":{"@lost:x":{"ts":1}}}}}`)
	}
	list = append(list, typing("@a:x"), receipt("!r:x", "$1", "m.read", "@a:x", ""))
	f.mustPut("1", `{"events":[`+message("$1")+`],"ephemeral":[`+strings.Join(list, ",")+`]}`)
	got := f.handedOver()
	slices.Sort(got)
	if want := []string{`receipts @a:x $1 "" 1`, "typing " + testRoom + " +[@a:x] -[]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	f.idle()
	if f.rec.ids() != "$1" {
		t.Errorf("handled %q", f.rec.ids())
	}
}

func TestA11_EphemeralEvents_AreNeverHandledAsEvents(t *testing.T) {
	f := newFixture(t, nil)
	// Everything that would make a room event of them.
	full := `"event_id":"$e","room_id":"` + testRoom + `","sender":"@bob:hs.test",`
	f.mustPut("1", ephemeral(
		`{`+full+`"type":"m.room.encryption","state_key":"","content":{"algorithm":"m.megolm.v1.aes-sha2"}}`,
		`{`+full+`"type":"m.room.member","state_key":"@irc_a:hs.test","content":{"membership":"invite"}}`,
		`{`+full+`"type":"m.room.message","content":{"msgtype":"m.text","body":"x"}}`,
		`{`+full+`"type":"m.typing","state_key":"","content":{"user_ids":["@a:x"],"membership":"join"}}`,
		`{`+full+`"type":"m.presence","state_key":"@irc_a:hs.test","content":{"presence":"online","membership":"join"}}`))
	if got := f.handedOver(); len(got) != 2 {
		t.Errorf("handed over %q", got)
	}
	ctx := context.Background()
	encrypted, known, err := f.store.Encrypted(ctx, testRoom)
	members, _ := f.store.Members(ctx, testRoom)
	if encrypted || known || err != nil || len(members) != 0 || f.rows() != 0 || len(f.deadLetters()) != 0 || f.rec.ids() != "" {
		t.Errorf("encrypted %v, members %v, %d rows, handled %q", encrypted, members, f.rows(), f.rec.ids())
	}
	f.mustPut("2", events(message("$e"))) // its ID was not remembered
	f.idle()
	if f.rec.ids() != "$e" {
		t.Errorf("handled %q", f.rec.ids())
	}
}

func TestA13_GhostsAndTheBot_AreFilteredOutOfEveryKind(t *testing.T) {
	f := newFixture(t, nil)
	for _, own := range []string{"@irc_a:hs.test", "@ircbot:hs.test"} {
		f.mustPut("1", ephemeral(typing(own), present(own), receipt("!r:x", "$1", "m.read", own, "")))
		if got := f.handedOver(); got != nil {
			t.Errorf("of %s: %q", own, got)
		}
		f.mustPut("2", ephemeral(typing("@a:x", own), receipt("!r:x", "$1", "m.read", "@a:x", `},"`+own+`":{"ts":2`)))
		got := f.handedOver()
		slices.Sort(got)
		if want := []string{`receipts @a:x $1 "" 1`, "typing " + testRoom + " +[@a:x] -[]"}; !slices.Equal(got, want) {
			t.Errorf("beside %s: %q, want %q", own, got, want)
		}
		f.mustPut("3", ephemeral(typing(own)))
		if got := f.handedOver(); fmt.Sprint(got) != "[typing "+testRoom+" +[] -[@a:x]]" {
			t.Errorf("when %s alone goes on: %q", own, got)
		}
	}
	// Users who look like ghosts and are somebody else's.
	f.mustPut("4", ephemeral(typing("@irc_a:other.test", "@xirc_a:hs.test")))
	if got := f.handedOver(); len(got) != 1 || !strings.Contains(got[0], "+[@irc_a:other.test @xirc_a:hs.test]") {
		t.Errorf("got %q", got)
	}
}

// The echo of an event that a ghost sent settles the sending, so the handler is given it, in its place in the room. What
// ghosts type and read settles nothing, and is dropped.
func TestA13_EchoesOfGhosts_AsEventsReachTheHandlerAsEphemeralEventsDoNot(t *testing.T) {
	f := newFixture(t, nil)
	own := func(eventID, sender string) string {
		return strings.ReplaceAll(message(eventID), "@bob:hs.test", sender)
	}
	f.mustPut("1", `{"events":[`+strings.Join([]string{message("$1"), own("$2", "@irc_a:hs.test"), message("$3"), own("$4", "@ircbot:hs.test")}, ",")+`],"ephemeral":[`+
		receipt(testRoom, "$2", "m.read", "@irc_a:hs.test", "")+`,`+receipt(testRoom, "$2", "m.read.private", "@a:x", "")+`,`+typing("@irc_a:hs.test")+`]}`)
	if got := f.handedOver(); got != nil {
		t.Errorf("handed over %q", got)
	}
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3 $4" {
		t.Errorf("handled %q", got)
	}
}

func TestA15_PrivateReceipts_BesidePublicOnes_AreLeftOut(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", ephemeral(`{"type":"m.receipt","room_id":"!r:x","content":{"$1":{"m.read.private":{"@a:x":{"ts":1},"@b:x":{"ts":2,"thread_id":"main"}},"m.read":{"@c:x":{"ts":3}}},"$2":{"m.read.private":{"@c:x":{"ts":4}}}}}`,
		receipt("!r:x", "$3", "m.read.private", "@c:x", "")))
	if got := f.handedOver(); fmt.Sprint(got) != `[receipts @c:x $1 "" 3]` {
		t.Errorf("got %q", got)
	}
}

func TestA16_ReceiptsOfThreads_AreAcceptedAndKeepTheirThread(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", ephemeral(receipt("!r:x", "$1", "m.read", "@a:x", `,"thread_id":"main"`), receipt("!r:x", "$2", "m.read", "@a:x", `,"thread_id":"$root"`),
		receipt("!r:x", "$3", "m.read", "@a:x", ``), receipt("!r:x", "$4", "m.read", "@b:x", `,"thread_id":null`), receipt("!s:x", "$5", "m.read", "@a:x", `,"thread_id":"main"`)))
	got := f.handedOver()
	if want := []string{`receipts @a:x $1 "main" 1`, `receipts @a:x $2 "$root" 1`, `receipts @a:x $3 "" 1`, `receipts @b:x $4 "" 1`, `receipts @a:x $5 "main" 1`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestA18_PresenceOfStrangers_MakesNothing(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", ephemeral(present("@stranger:far.example"), present("@irc_unregistered:hs.test"), `{"type":"m.presence","sender":"","content":{}}`,
		`{"type":"m.presence","sender":5,"content":{}}`))
	if got := f.handedOver(); fmt.Sprint(got) != `[presence @stranger:far.example online ""]` {
		t.Errorf("handed over %q", got)
	}
	for _, user := range []string{"@stranger:far.example", "@irc_unregistered:hs.test"} {
		if _, err := f.store.Ghost(context.Background(), user); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s is in the store: %v", user, err)
		}
	}
	if f.rows() != 0 || len(f.deadLetters()) != 0 {
		t.Error("something was stored")
	}
}

func TestA20_UnderAFloodOfEphemeralEvents_EveryMessageIsHandledAndTheNewestAreLeft(t *testing.T) {
	f := newFixture(t, nil)
	block := make(chan struct{})
	f.rec.ephemeral = func(*Ephemeral) { <-block }
	const rounds, each = 150, 100
	for round := range rounds {
		list := make([]string, each)
		for i := range list {
			list[i] = present(fmt.Sprintf("@u%d:x", round*each+i))
		}
		list[0] = typing(fmt.Sprintf("@t%d:x", round)) // of one room, so only the newest is of interest
		list[1] = receipt("!r:x", fmt.Sprint("$", round), "m.read", "@reader:x", "")
		f.mustPut(fmt.Sprint(round), `{"events":[`+message(fmt.Sprint("$", round))+`],"ephemeral":[`+strings.Join(list, ",")+`]}`)
	}
	f.rec.waitEvents(rounds) // while the handler of ephemeral events does nothing at all
	f.idle()
	newest := ephemeralKey{typ: "m.presence", user: userID(fmt.Sprintf("@u%d:x", rounds*each-1))}
	for read := false; !read; time.Sleep(time.Millisecond) { // until all of it was read, and what is too much was dropped
		f.as.ephemeral.mu.Lock()
		_, read = f.as.ephemeral.waiting[newest]
		f.as.ephemeral.mu.Unlock()
	}
	close(block)
	got := f.handedOver()
	if len(got) > ephemeralQueue+1 {
		t.Errorf("%d were kept, more than may wait", len(got))
	}
	text := strings.Join(got, "\n")
	for newest, times := range map[string]int{fmt.Sprintf("@u%d:x ", rounds*each-1): 1, fmt.Sprintf("+[@t%d:x]", rounds-1): 1, fmt.Sprintf("@reader:x $%d ", rounds-1): 1} {
		if strings.Count(text, newest) != times {
			t.Errorf("%q was handed over %d times", newest, strings.Count(text, newest))
		}
	}
	if typings, receipts := strings.Count(text, "typing "), strings.Count(text, "receipts "); typings > 2 || receipts > 2 {
		t.Errorf("%d typing lists and %d receipts of one room and reader were handed over: one may have been under way before the newest", typings, receipts)
	}
}

func TestA21_EphemeralEventsThatWereNotAskedFor_AreIgnored(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Registration.ReceiveEphemeral = false })
	f.mustPut("1", `{"events":[`+message("$1")+`],"ephemeral":[`+typing("@a:x")+`,`+present("@a:x")+`]}`)
	f.mustPut("2", `{"`+oldPrefix+`ephemeral":[`+receipt("!r:x", "$1", "m.read", "@a:x", "")+`]}`)
	f.idle()
	f.stop() // whatever was queued is handed over or dropped by now
	f.rec.mu.Lock()
	defer f.rec.mu.Unlock()
	f.as.ephemeral.mu.Lock()
	defer f.as.ephemeral.mu.Unlock()
	if len(f.rec.ephemerals)+len(f.as.ephemeral.raw)+len(f.as.ephemeral.waiting) != 0 || len(f.rec.events) != 1 {
		t.Errorf("handed over %v, events %v", f.rec.ephemerals, f.rec.events)
	}
}
