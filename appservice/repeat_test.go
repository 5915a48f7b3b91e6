package appservice

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

func TestA23_SameIDSameBody_HandlesNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	body := events(message("$1"), message("$2"))
	f.mustPut("1", body)
	f.mustPut("1", body)
	f.mustPut("2", body)
	f.idle()
	if got := f.rec.ids(); got != "$1 $2" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_SameIDLargerBody_HandlesOnlyNewEvents(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("7", events(message("$1")))
	f.mustPut("7", events(message("$1"), message("$2"), message("$3")))
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_IDStartsOverWithOtherEvents_HandlesAllOfThem(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", events(message("$1")))
	f.mustPut("117", events(message("$2")))
	f.mustPut("1", events(message("$3")))
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_RepeatedWhileTheFirstIsHandled_HandlesNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	release := make(chan struct{})
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	body := events(message("$1"))
	var both sync.WaitGroup
	for range 8 {
		both.Go(func() {
			if code, answer := f.put("1", body); code != 200 {
				t.Errorf("%d %s", code, answer)
			}
		})
	}
	both.Wait()
	close(release)
	f.idle()
	if got := f.rec.ids(); got != "$1" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_RepeatedAfterARestart_HandlesNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", events(message("$1")))
	f.idle()
	f.crash()
	f.mustPut("1", events(message("$1"), message("$2")))
	f.idle()
	if got := f.rec.ids(); got != "$2" {
		t.Errorf("handled %s after the restart", got)
	}
}

func TestA23_ToDeviceMessage_IsOneByTransactionAndBody(t *testing.T) {
	f := newFixture(t, nil)
	msg := func(n int) string {
		return fmt.Sprintf(`{"type":"m.room.encrypted","sender":"@bob:hs.test","to_user_id":"@irc_a:hs.test","to_device_id":"D","content":{"n":%d}}`, n)
	}
	f.mustPut("1", `{"de.sorunome.msc2409.to_device":[`+msg(1)+`,`+msg(2)+`]}`)
	f.mustPut("1", `{"de.sorunome.msc2409.to_device":[`+msg(1)+`,`+msg(2)+`]}`)
	f.mustPut("2", `{"to_device":[`+msg(1)+`]}`)
	f.idle()
	if n := len(f.rec.events); n != 3 {
		t.Errorf("%d messages were handled, want 3", n)
	}
	ev := f.rec.events[0]
	if ev.Lane != "device:@irc_a:hs.test/D" || ev.ToDeviceID != "D" || ev.Kind != store.KindToDevice {
		t.Errorf("got %+v", ev)
	}
}

func TestA23_TwoBodiesOfOneIDAtOnce_HandleEveryEventOnce(t *testing.T) {
	f := newFixture(t, nil)
	all := []string{message("$1"), message("$2"), message("$3"), message("$4")}
	var both sync.WaitGroup
	for n := range all { // as Dendrite does when an answer is late: the same ID with more and more in it
		for range 2 {
			both.Go(func() { f.mustPut("5", events(all[:n+1]...)) })
		}
	}
	both.Wait()
	f.idle()
	got := strings.Fields(f.rec.ids())
	slices.Sort(got)
	if fmt.Sprint(got) != "[$1 $2 $3 $4]" {
		t.Errorf("handled %v", got)
	}
}

func TestA23_OtherIDsWithTheSameEvents_HandleNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("BhvzdLnCgTvZ4k3Ng7w", events(message("$1"), message("$2"), message("$1"))) // an event may also come twice in one
	f.mustPut("n5eTG4CZQ8vYxQw1b2M", events(message("$2"), message("$3")))
	f.mustPut("BhvzdLnCgTvZ4k3Ng7w", events(message("$4")))
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3 $4" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_HomeserverBackAfterAWeek_RepeatsNothing(t *testing.T) {
	f := newFixture(t, nil)
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	f.now = func() time.Time { return time.Unix(0, clock.Load()) }
	f.crash()
	toDevice := `{"type":"m.room.encrypted","sender":"@bob:hs.test","to_user_id":"@irc_a:hs.test","to_device_id":"D","content":{}}`
	body := `{"events":[` + message("$1") + `,` + message("$2") + `],"to_device":[` + toDevice + `]}`
	week := func() {
		clock.Add(int64(8 * 24 * time.Hour))
		if err := f.store.Prune(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	f.mustPut("7", body)
	f.idle()
	week()
	f.mustPut("7", body)
	f.idle()
	if got := len(f.rec.waitEvents(3)); got != 3 {
		t.Errorf("%d were handled while the bridge stayed up", got)
	}
	week()
	f.crash()
	f.mustPut("7", body)
	f.mustPut("1", events(message("$2"), message("$3")))
	f.idle()
	if got := f.rec.ids(); got != "$3" {
		t.Errorf("handled %q after a week and a restart", got)
	}
}

func TestA23_RepeatedWhileItIsHandledAndThenTheProcessEnds_HandlesNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	entered := make(chan struct{}, 1)
	f.rec.handle = func(ctx context.Context, _ *Event) ([]Effect, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mustPut("1", events(message("$1")))
	<-entered
	f.mustPut("1", events(message("$1"))) // the answer was lost, the handler is at it
	f.crash(func(*Config) { f.rec.handle = nil })
	f.mustPut("1", events(message("$1")))
	f.idle()
	if got := f.rec.ids(); got != "$1" {
		t.Errorf("handled %q after the restart", got)
	}
}
