package bridgetest_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// texts are the bodies of the messages in transactions, one string for each.
func texts(txns []asked) []string {
	var out []string
	for _, txn := range txns {
		var bodies []string
		for _, ev := range txn.list("events") {
			content, _ := ev["content"].(map[string]any)
			bodies = append(bodies, fmt.Sprint(content["body"]))
		}
		out = append(out, strings.Join(bodies, " "))
	}
	return out
}

func ids(txns []asked) []string {
	var out []string
	for _, txn := range txns {
		out = append(out, txn.transaction())
	}
	return out
}

// fails makes the appservice fail until the returned function is called.
func (w *world) fails() (recover func()) {
	w.as.answers(func(asked) (int, string) { return 500, "{}" })
	return func() { w.as.answers(nil) }
}

func (w *world) waitState(what string, cond func(bridgetest.AppServiceState) bool) bridgetest.AppServiceState {
	w.Helper()
	state, err := w.hs.WaitAppService(w.ctx, "demo", cond)
	if err != nil {
		w.Fatalf("%s: %v", what, err)
	}
	return state
}

func down(s bridgetest.AppServiceState) bool { return !s.Up }

func startAs(t *testing.T, change func(*bridgetest.Registration), options ...bridgetest.Option) *world {
	t.Helper()
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t, options...), as: newBridgeSide(t)}
	reg := registration(w.as.url)
	if change != nil {
		change(reg)
	}
	w.no(w.hs.AddRegistration(reg))
	return w
}

func TestPush_Synapse_PausesDoubleOnTheClockUntil512Seconds(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, nil, bridgetest.Synapse, clock)
	alice, _, room := w.withGhost()
	up := w.fails()
	must(alice.SendText(w.ctx, room, "one"))(w)
	begin := clock.Now()
	var pauses []string
	for i := range 11 {
		state := w.waitState("a failure", func(s bridgetest.AppServiceState) bool { return s.Failed == i+1 })
		pauses = append(pauses, state.NextTry.Sub(begin).String())
		begin = state.NextTry
		if i == 10 {
			up()
		}
		clock.Advance(state.NextTry.Sub(clock.Now()) - time.Millisecond)
		for range 20 { // a try before its time has the time to happen
			w.expect("GET", "account/whoami", "", 200, "")
		}
		w.is(w.hs.AppServiceState("demo").Failed, i+1)
		clock.Advance(time.Millisecond)
	}
	w.is(strings.Join(pauses, " "), "2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 8m32s 8m32s 8m32s")
	w.no(w.hs.Settle(w.ctx))
}

func TestPush_Dendrite_SameIDAgainWithMoreInIt(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, func(r *bridgetest.Registration) { r.DeviceExtensions = true }, bridgetest.Dendrite, clock)
	alice, _, room := w.withGhost()
	before := len(w.as.transactions())
	up := w.fails()
	must(alice.SendText(w.ctx, room, "f1"))(w)
	w.waitState("the failure", down)
	must(alice.SendText(w.ctx, room, "f2"))(w)
	must(alice.SendText(w.ctx, room, "f3"))(w)
	w.no(alice.Typing(w.ctx, room, true))
	up()
	clock.Advance(2 * time.Second)
	w.no(w.hs.Settle(w.ctx))
	must(alice.SendText(w.ctx, room, "after"))(w)
	w.no(w.hs.Settle(w.ctx))
	got := w.as.transactions()[before:]
	w.is(texts(got), []string{"f1", "f1 f2 f3", "after"})
	w.is(ids(got)[0], ids(got)[1])
	for _, txn := range got {
		w.is(len(txn.Body), 1) // events, and nothing else whatever the registration asks for
		if n, err := strconv.ParseInt(txn.transaction(), 10, 64); err != nil || n < time.Now().Add(-time.Hour).UnixNano() {
			t.Fatalf("the ID %s is no time in nanoseconds", txn.transaction())
		}
		for _, ev := range txn.list("events") {
			if ev["age"] != nil || ev["user_id"] != nil || ev["unsigned"] != nil {
				t.Fatalf("fields of Synapse's in %v", ev)
			}
		}
	}
}

func TestPush_Dendrite_AtMostFiftyAndOnly200IsSuccess(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, nil, bridgetest.Dendrite, clock)
	alice, _, room := w.withGhost()
	before := len(w.as.transactions())
	w.as.answers(func(asked) (int, string) { return 202, "{}" })
	must(alice.SendText(w.ctx, room, "0"))(w)
	w.waitState("202 to be a failure", down)
	for i := range 120 {
		must(alice.SendText(w.ctx, room, strconv.Itoa(i+1)))(w)
	}
	w.as.answers(func(asked) (int, string) { return 200, "no JSON" })
	clock.Advance(2 * time.Second)
	w.no(w.hs.Settle(w.ctx))
	var sizes []int
	for _, txn := range w.as.transactions()[before:] {
		sizes = append(sizes, len(txn.list("events")))
	}
	w.is(sizes, []int{1, 50, 50, 21})
}

func TestPush_Dendrite_PausesEndAt64Seconds(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, nil, bridgetest.Dendrite, clock)
	alice, _, room := w.withGhost()
	w.fails()
	must(alice.SendText(w.ctx, room, "one"))(w)
	var last time.Duration
	for i := range 8 {
		state := w.waitState("a failure", func(s bridgetest.AppServiceState) bool { return s.Failed == i+1 })
		last = state.NextTry.Sub(clock.Now())
		clock.Advance(last)
	}
	w.is(last.String(), "1m4s")
}

func TestPush_ContinuwuityAndTuwunel_TryAgainOnlyWithTheNextEvent(t *testing.T) {
	for _, p := range []bridgetest.Personality{bridgetest.Continuwuity, bridgetest.Tuwunel} {
		t.Run(p.String(), func(t *testing.T) {
			clock := bridgetest.NewClock()
			w := startAs(t, nil, p, clock)
			alice, _, room := w.withGhost()
			before := len(w.as.transactions())
			up := w.fails()
			must(alice.SendText(w.ctx, room, "held"))(w)
			w.is(w.waitState("the failure", down).NextTry.IsZero(), true)
			clock.Advance(24 * time.Hour) // no timer brings it
			for range 50 {                // nor anything else, for as long as this takes
				w.expect("GET", "account/whoami", "", 200, "")
			}
			w.is(len(w.as.transactions()), before+1)
			up()
			must(alice.SendText(w.ctx, room, "next"))(w)
			w.no(w.hs.Settle(w.ctx))
			got := w.as.transactions()[before:]
			w.is(texts(got), []string{"held", "held", "next"})
			w.is(ids(got)[0], ids(got)[1])
			if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(got[0].transaction()) {
				t.Fatalf("the ID %s is no hash", got[0].transaction())
			}
			w.fails()
			must(alice.SendText(w.ctx, room, "again"))(w)
			w.waitState("the failure", down)
			w.as.answers(nil)
			w.hs.Restart() // as does a restart
			w.no(w.hs.Settle(w.ctx))
		})
	}
}

func TestPush_Tuwunel_PingFlushes(t *testing.T) {
	const ping = "/_matrix/client/v1/appservice/demo/ping"
	w := startAs(t, nil, bridgetest.Tuwunel)
	alice, _, room := w.withGhost()
	up := w.fails()
	must(alice.SendText(w.ctx, room, "held"))(w)
	w.waitState("the failure", down)
	up()
	w.expect("POST", ping, `{}`, 200, "")
	w.no(w.hs.Settle(w.ctx))
	d := startAs(t, nil, bridgetest.Dendrite)
	d.expect("POST", ping, `{}`, 404, "M_UNRECOGNIZED")
}

func TestPush_Continuwuity_SortsByRoomAndSendsNothingButEvents(t *testing.T) {
	w := startAs(t, func(r *bridgetest.Registration) { r.DeviceExtensions = true }, bridgetest.Continuwuity)
	alice, ghost, first := w.withGhost()
	second := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat"}))(w)
	must(ghost.JoinRoomByID(w.ctx, second))(w)
	w.no(w.hs.Settle(w.ctx))
	before := len(w.as.transactions())
	hold := make(chan struct{})
	w.as.answers(func(asked) (int, string) { <-hold; return 200, "" })
	must(alice.SendText(w.ctx, first, "begin"))(w)
	w.as.event(w, body("begin"))
	for i := range 30 {
		must(alice.SendText(w.ctx, second, fmt.Sprint("b", i)))(w)
		must(alice.SendText(w.ctx, first, fmt.Sprint("a", i)))(w)
	}
	w.no(alice.Typing(w.ctx, first, true))
	close(hold)
	w.no(w.hs.Settle(w.ctx))
	got := w.as.transactions()[before:]
	w.is(len(got), 3)
	w.is([]int{len(got[1].list("events")), len(got[2].list("events"))}, []int{48, 12})
	all := strings.Fields(texts(got[1:2])[0])
	w.is([]string{all[0], all[29], all[30], all[47]}, []string{"a0", "a29", "b0", "b17"})
	for _, txn := range got {
		w.is(len(txn.Body), 1)
	}
}

func TestPush_Tuwunel_IdenticalTypingHasOneID(t *testing.T) {
	w := startAs(t, func(r *bridgetest.Registration) { r.DeviceExtensions = true }, bridgetest.Tuwunel)
	alice, _, room := w.withGhost()
	before := len(w.as.transactions())
	for range 2 {
		for _, typing := range []bool{true, false} {
			w.no(alice.Typing(w.ctx, room, typing))
			w.no(w.hs.Settle(w.ctx))
		}
	}
	got := ids(w.as.transactions()[before:])
	w.is(len(got), 4)
	if got[0] != got[2] || got[1] != got[3] || got[0] == got[1] {
		t.Fatalf("the IDs are %v", got)
	}
	w.expect("PUT", "devices/DEV1?user_id=@demo_bob:hs.test", `{}`, 404, "M_NOT_FOUND")
}

func TestPush_TokensByPersonality_HeaderAlwaysQueryUnescaped(t *testing.T) {
	for _, p := range bridgetest.Personalities() {
		w := startAs(t, func(r *bridgetest.Registration) { r.HSToken = "hs-to&ken" }, p)
		w.withGhost()
		first := w.as.transactions()[0]
		want := ""
		if p == bridgetest.Continuwuity || p == bridgetest.Tuwunel {
			want = "access_token=hs-to&ken" // which says hs-to
		}
		w.is([]string{first.Auth, first.Query}, []string{"Bearer hs-to&ken", want})
	}
}

func TestPoison_ComesWithGoodNeighboursAndAgainAfterAFailure(t *testing.T) {
	for _, p := range bridgetest.Personalities() {
		t.Run(p.String(), func(t *testing.T) {
			w := startAs(t, nil, p)
			alice, _, room := w.withGhost()
			before := len(w.as.transactions())
			w.hs.Poison("demo", bridgetest.EventSection, `{"redacts":5}`, `null`, `"str"`)
			w.hs.PushFault(bridgetest.PushFault{AppService: "demo", LoseAnswer: true})
			must(alice.SendText(w.ctx, room, "good"))(w)
			w.waitState("the failure", func(s bridgetest.AppServiceState) bool { return s.Failed == 1 })
			must(alice.SendText(w.ctx, room, "next"))(w)
			w.no(w.hs.Settle(w.ctx))
			for _, txn := range w.as.transactions()[before : before+2] {
				events, _ := txn.Body["events"].([]any)
				if len(events) < 4 {
					t.Fatalf("got %v", txn.Body)
				}
				w.is(events[:3], []any{map[string]int{"redacts": 5}, nil, "str"})
				good, _ := events[3].(map[string]any)
				w.is(good["content"], map[string]string{"msgtype": "m.text", "body": "good"})
			}
		})
	}
	w := startAs(t, nil)
	alice, _, room := w.withGhost()
	w.hs.Poison("demo", bridgetest.EphemeralSection, `5`)
	w.hs.Poison("demo", bridgetest.ToDeviceSection, `[]`)
	must(alice.SendText(w.ctx, room, "good"))(w)
	w.as.event(w, body("good"))
	txns := w.as.transactions()
	last := txns[len(txns)-1]
	w.is([]any{last.Body["ephemeral"], last.Body["de.sorunome.msc2409.to_device"]}, []any{[]int{5}, []any{[]any{}}})
}

func TestPushFault_CutRequestArrivesInHalf_DelayWaitsForTheClock(t *testing.T) {
	clock := bridgetest.NewClock()
	w := startAs(t, nil, clock)
	alice, _, room := w.withGhost()
	before := len(w.as.transactions())
	w.hs.PushFault(bridgetest.PushFault{CutRequest: true})
	must(alice.SendText(w.ctx, room, "halved"))(w)
	w.waitState("the failure", down)
	w.as.until(w, func([]asked) bool { return len(w.as.transactions()) > before }) // the half that arrived may be read later
	if half := w.as.transactions()[before]; half.Body != nil {
		t.Fatalf("the whole body came: %v", half.Body)
	}
	clock.Advance(2 * time.Second)
	w.no(w.hs.Settle(w.ctx))
	w.as.event(w, body("halved"))
	before = len(w.as.transactions())
	w.hs.PushFault(bridgetest.PushFault{Delay: time.Minute})
	must(alice.SendText(w.ctx, room, "late"))(w)
	w.waitState("the transaction", func(s bridgetest.AppServiceState) bool { return s.Pending == 1 })
	w.is(len(w.as.transactions()), before)
	for w.waitStateNow().Pending > 0 { // the delay begins a little after the transaction is made
		clock.Advance(time.Minute)
	}
	w.as.event(w, body("late"))
}

func (w *world) waitStateNow() bridgetest.AppServiceState { return w.hs.AppServiceState("demo") }

func TestPushFault_OfOneEndpoint_LeavesTheOthers(t *testing.T) {
	w := startAs(t, nil)
	w.hs.PushFault(bridgetest.PushFault{Path: regexp.MustCompile(`^ping$`), Times: 2, LoseAnswer: true})
	w.withGhost()
	const ping = "/_matrix/client/v1/appservice/demo/ping"
	w.expect("POST", ping, `{}`, 502, "M_CONNECTION_FAILED")
	w.expect("POST", ping, `{}`, 502, "M_CONNECTION_FAILED")
	w.expect("POST", ping, `{}`, 200, "")
}

func TestRestart_OfSynapseOnSQLite_IDsBeginAtOneAgain(t *testing.T) {
	w := startAs(t, nil, bridgetest.Options{RestartSequence: true})
	alice, _, room := w.withGhost()
	must(alice.SendText(w.ctx, room, "q1"))(w)
	w.as.event(w, body("q1"))
	w.no(w.hs.Settle(w.ctx))
	if w.hs.AppServiceState("demo").LastID == "1" {
		t.Fatal("one transaction cannot show it")
	}
	w.hs.Restart()
	must(alice.SendText(w.ctx, room, "q2"))(w)
	w.as.event(w, body("q2"))
	w.no(w.hs.Settle(w.ctx))
	w.is(w.hs.AppServiceState("demo").LastID, "1")
}

func TestOptions_InAnyOrder_KeepPersonalityAndClock(t *testing.T) {
	clock := bridgetest.NewClock()
	for _, options := range [][]bridgetest.Option{
		{bridgetest.Tuwunel, clock, bridgetest.Options{ServerName: "a.test"}},
		{bridgetest.Options{ServerName: "a.test"}, clock, bridgetest.Tuwunel},
		{bridgetest.Options{ServerName: "a.test", Personality: bridgetest.Tuwunel, Clock: clock}},
	} {
		hs := bridgetest.NewHomeserver(t, options...)
		if hs.Domain() != "a.test" || hs.Personality() != bridgetest.Tuwunel {
			t.Fatalf("%s is a %s", hs.Domain(), hs.Personality())
		}
	}
	if _, err := bridgetest.StartHomeserver(bridgetest.Options{Personality: 99}); err == nil || !strings.Contains(err.Error(), "Personality(99)") {
		t.Fatalf("got %v", err)
	}
	if all := bridgetest.Personalities(); !slices.Contains(all, bridgetest.SynapseOAuth) || all[0] != bridgetest.Synapse {
		t.Fatalf("got %v", all)
	}
}
