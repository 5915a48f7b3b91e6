package appservice

import (
	"context"
	"fmt"
	"sync"
	"testing"

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
