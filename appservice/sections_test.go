package appservice

import (
	"fmt"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

func TestA4_EphemeralAbsentNullOrEmpty_ChangesNothing(t *testing.T) {
	f := newFixture(t, nil)
	for i, rest := range []string{``, `,"ephemeral":null`, `,"ephemeral":[]`, `,"to_device":null,"device_lists":null`} {
		f.mustPut(fmt.Sprint(i), `{"events":[`+message(fmt.Sprint("$", i))+`]`+rest+`}`)
	}
	f.mustPut("n", `{"events":null}`)
	f.mustPut("e", `{}`)
	f.idle()
	if got := f.rec.ids(); got != "$0 $1 $2 $3" {
		t.Errorf("handled %s", got)
	}
	if dead := f.deadLetters(); len(dead) != 0 {
		t.Errorf("dead letters %+v", dead)
	}
}

func TestK2_DeviceListsAndKeyCounts_InBothSpellings(t *testing.T) {
	for i, body := range []string{
		`{"events":[],"org.matrix.msc3202.device_lists":{"changed":["@a:x"],"left":[]},"org.matrix.msc3202.device_one_time_keys_count":{"@irc_a:hs.test":{"D":{"signed_curve25519":3}}},"org.matrix.msc3202.device_one_time_key_counts":{"@irc_a:hs.test":{"D":{"signed_curve25519":3}}},"org.matrix.msc3202.device_unused_fallback_key_types":{"@irc_a:hs.test":{"D":[]}}}`,
		`{"device_lists":{"changed":["@a:x"],"left":[]},"org.matrix.msc3202.device_one_time_key_counts":{"@irc_a:hs.test":{"D":{"signed_curve25519":3}}},"device_unused_fallback_key_types":{"@irc_a:hs.test":{"D":[]}}}`,
	} {
		f := newFixture(t, nil)
		f.mustPut("1", body)
		f.idle()
		if len(f.rec.events) != 2 {
			t.Fatalf("body %d: %d elements", i, len(f.rec.events))
		}
		if got := string(f.rec.events[0].Raw); got != `{"changed":["@a:x"],"left":[]}` || f.rec.events[0].Kind != store.KindDeviceLists {
			t.Errorf("device lists %s", got)
		}
		want := `{"device_one_time_keys_count":{"@irc_a:hs.test":{"D":{"signed_curve25519":3}}},"device_unused_fallback_key_types":{"@irc_a:hs.test":{"D":[]}}}`
		if got := string(f.rec.events[1].Raw); got != want || f.rec.events[1].Kind != store.KindKeyCounts {
			t.Errorf("key counts %s", got)
		}
	}
}
