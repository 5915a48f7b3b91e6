package appservice

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

const (
	oldPrefix     = "de.sorunome.msc2409."
	devicesPrefix = "org.matrix.msc3202."
)

func TestA4_EphemeralAbsentNullOrEmpty_ChangesNothing(t *testing.T) {
	f := newFixture(t, nil)
	rests := []string{
		``, `,"ephemeral":null`, `,"ephemeral":[]`, `,"de.sorunome.msc2409.ephemeral":null`, `,"de.sorunome.msc2409.ephemeral":[]`,
		`,"to_device":null,"device_lists":null,"device_one_time_keys_count":null,"device_unused_fallback_key_types":null`,
		`,"to_device":[],"device_lists":{},"device_one_time_keys_count":{},"device_unused_fallback_key_types":{}`,
	}
	want := make([]string, len(rests))
	for i, rest := range rests {
		want[i] = fmt.Sprint("$", i)
		f.mustPut(fmt.Sprint(i), `{"events":[`+message(want[i])+`]`+rest+`}`)
	}
	f.mustPut("n", `{"events":null}`)
	f.mustPut("e", `{}`)
	f.idle()
	if got := f.rec.ids(); got != strings.Join(want, " ") {
		t.Errorf("handled %s", got)
	}
	if dead := f.deadLetters(); len(dead) != 0 || f.handedOver() != nil {
		t.Errorf("dead letters %+v", dead)
	}
}

func TestA5_EitherSpellingOfEphemeral_IsDelivered(t *testing.T) {
	for _, name := range []string{"ephemeral", oldPrefix + "ephemeral"} {
		f := newFixture(t, nil)
		f.mustPut("1", `{"events":[],"`+name+`":[`+typing("@a:x")+`]}`)
		if got := f.handedOver(); fmt.Sprint(got) != "[typing "+testRoom+" +[@a:x] -[]]" {
			t.Errorf("under %q: %q", name, got)
		}
	}
	f := newFixture(t, nil)
	f.mustPut("1", `{"ephemeral":null,"`+oldPrefix+`ephemeral":[`+typing("@a:x")+`]}`)
	if got := f.handedOver(); len(got) != 1 {
		t.Errorf("beside a stable name without a value: %q", got)
	}
}

func TestA6_BothSpellingsOfEphemeral_OneEventIsDeliveredAndNotTwo(t *testing.T) {
	other := strings.ReplaceAll(typing("@b:x"), testRoom, "!other:x")
	for _, body := range []string{
		`{"ephemeral":[` + typing("@a:x") + `],"` + oldPrefix + `ephemeral":[` + other + `]}`,
		`{"` + oldPrefix + `ephemeral":[` + other + `],"ephemeral":[` + typing("@a:x") + `]}`,
	} {
		f := newFixture(t, nil)
		f.mustPut("1", body)
		if got := f.handedOver(); fmt.Sprint(got) != "[typing "+testRoom+" +[@a:x] -[]]" {
			t.Errorf("%s gave %q", body, got)
		}
	}
}

func toDeviceMessage(user, device, typ string) string {
	return fmt.Sprintf(`{"content":{"k":1},"sender":"@bob:hs.test","to_device_id":%q,"to_user_id":%q,"type":%q}`, device, user, typ)
}

func TestA19_ToDevice_IsASectionOfItsOwnAndNoEphemeralEvent(t *testing.T) {
	for _, receive := range []bool{true, false} { // opting out of ephemeral events is no word about keys
		f := newFixture(t, nil, func(c *Config) { c.Registration.ReceiveEphemeral = receive })
		f.mustPut("1", `{"ephemeral":[`+toDeviceMessage("@irc_a:hs.test", "D", "m.in_the_wrong_place")+`],"`+
			oldPrefix+`to_device":[`+toDeviceMessage("@irc_a:hs.test", "D", "m.room_key")+`]}`)
		f.idle()
		got := f.rec.waitEvents(1)
		if len(got) != 1 || got[0].Type != "m.room_key" || got[0].Kind != store.KindToDevice {
			t.Errorf("receive_ephemeral %v: handled %+v", receive, got)
		}
		if receive && f.handedOver() != nil {
			t.Error("a to-device message became an ephemeral event")
		}
	}
}

// spellings are all names of the sections beside events and ephemeral, the ones that count first at the top.
var spellings = map[string][]string{
	"device_lists":  {"device_lists", devicesPrefix + "device_lists"},
	"one_time_keys": {"device_one_time_keys_count", "device_one_time_key_counts", devicesPrefix + "device_one_time_keys_count", devicesPrefix + "device_one_time_key_counts"},
	"fallback_keys": {"device_unused_fallback_key_types", devicesPrefix + "device_unused_fallback_key_types"},
	"to_device":     {"to_device", oldPrefix + "to_device"},
}

// sectionValue is a value of a section that tells number n apart, and what the handler is to be given.
func sectionValue(section string, n int) (value, want string) {
	user := fmt.Sprintf("@irc_%d:hs.test", n)
	switch section {
	case "device_lists":
		value = fmt.Sprintf(`{"changed":[%q],"left":[]}`, user)
		return value, "2 " + value
	case "one_time_keys":
		value = fmt.Sprintf(`{%q:{"D":{"signed_curve25519":%d}}}`, user, n)
		return value, `3 {"device_one_time_keys_count":` + value + `}`
	case "fallback_keys":
		value = fmt.Sprintf(`{%q:{"D":["signed_curve25519"]}}`, user)
		return value, `3 {"device_unused_fallback_key_types":` + value + `}`
	}
	return "[" + toDeviceMessage(user, "D", "m.x") + "]", "1 " + toDeviceMessage(user, "D", "m.x")
}

func (f *fixture) elements() (list []string) {
	f.idle()
	for _, ev := range f.rec.waitEvents(0) {
		list = append(list, fmt.Sprintf("%d %s", kindNumber[ev.Kind], ev.Raw))
	}
	return list
}

var kindNumber = map[store.Kind]int{store.KindPDU: 0, store.KindToDevice: 1, store.KindDeviceLists: 2, store.KindKeyCounts: 3}

func TestK2_K3_EverySpellingAlone_IsDelivered(t *testing.T) {
	for section, names := range spellings {
		for _, name := range names {
			f := newFixture(t, nil)
			value, want := sectionValue(section, 1)
			f.mustPut("1", `{"events":[],"`+name+`":`+value+`}`)
			if got := f.elements(); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

func TestK2_K3_SpellingsTogether_TheFirstCountsAndNothingIsHandledTwice(t *testing.T) {
	for section, names := range spellings {
		for first := range names {
			for _, order := range [][]string{slices.Clone(names[first:]), reversed(names[first:])} {
				for _, null := range []bool{false, true} { // a name whose value is null is not there
					f := newFixture(t, nil)
					var members []string
					for _, name := range order {
						value, _ := sectionValue(section, slices.Index(names, name))
						members = append(members, `"`+name+`":`+value)
					}
					if null && first > 0 {
						members = append(members, `"`+names[0]+`":null`)
					}
					f.mustPut("1", `{`+strings.Join(members, ",")+`}`)
					if _, want := sectionValue(section, first); fmt.Sprint(f.elements()) != fmt.Sprint([]string{want}) {
						t.Errorf("%v gave %q, want %q", members, f.elements(), want)
					}
				}
			}
		}
	}
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

func TestK2_CountsAndFallbackTypes_AreOneElementAndOnesOwnDevicesCanBeTold(t *testing.T) {
	f := newFixture(t, nil)
	// Cross-signing keys look like devices, and a device without keys has an empty object.
	counts := `{"@irc_a:hs.test":{"AzZ+pseudo/device":{},"DEV":{"signed_curve25519":3}},"@ircbot:hs.test":{"BOT":{}}}`
	types := `{"@irc_a:hs.test":{"AzZ+pseudo/device":[],"DEV":["signed_curve25519"]},"@ircbot:hs.test":{"BOT":[]}}`
	f.mustPut("1", `{"`+devicesPrefix+`device_one_time_key_counts":`+counts+`,"`+devicesPrefix+`device_one_time_keys_count":`+counts+`,"`+devicesPrefix+`device_unused_fallback_key_types":`+types+`}`)
	want := `3 {"device_one_time_keys_count":` + counts + `,"device_unused_fallback_key_types":` + types + `}`
	if got := f.elements(); len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if ev := f.rec.waitEvents(1)[0]; ev.Lane != "keys" || ev.Kind != store.KindKeyCounts {
		t.Errorf("%+v", ev)
	}
}

func TestK3_ToDevice_GoesToExactlyThatDevice(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", `{"`+oldPrefix+`to_device":[`+strings.Join([]string{
		toDeviceMessage("@irc_a:hs.test", "ONE", "m.room_key"), toDeviceMessage("@irc_a:hs.test", "TWO", "m.room_key"),
		toDeviceMessage("@irc_b:hs.test", "ONE", "m.room_key"), toDeviceMessage("@irc_a:hs.test", "ONE", "m.dummy"),
	}, ",")+`]}`)
	f.idle()
	lanes := map[string]string{}
	for _, ev := range f.rec.waitEvents(4) {
		if ev.Lane != fmt.Sprintf("device:%s/%s", ev.ToUserID, ev.ToDeviceID) || ev.RoomID != "" || ev.ID != "" || ev.Sender != "@bob:hs.test" {
			t.Errorf("%+v", ev)
		}
		lanes[ev.Lane] += ev.Type + " "
	}
	if fmt.Sprint(lanes) != "map[device:@irc_a:hs.test/ONE:m.room_key m.dummy  device:@irc_a:hs.test/TWO:m.room_key  device:@irc_b:hs.test/ONE:m.room_key ]" {
		t.Errorf("by device: %v", lanes)
	}
}

func TestK3_DeviceListsAndToDevice_AreHandedOverBeforeTheEventsOfTheirTransaction(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Workers = 1 }) // so that what is handed over first is handled first
	f.mustPut("1", `{"events":[`+message("$1")+`],"to_device":[`+toDeviceMessage("@irc_a:hs.test", "D", "m.room_key")+`],"device_lists":{"changed":["@bob:hs.test"]}}`)
	f.idle()
	var kinds []store.Kind
	for _, ev := range f.rec.waitEvents(3) {
		kinds = append(kinds, ev.Kind)
	}
	if !slices.Equal(kinds, []store.Kind{store.KindDeviceLists, store.KindToDevice, store.KindPDU}) {
		t.Errorf("the order is %v", kinds)
	}
}
