package appservice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/trestle-bridge/trestle/store"
)

// reference is a transaction taken apart by encoding/json: slowly, and by other means than the splitter's.
type reference struct {
	elements  []string // in order; see describeElement
	ephemeral []string
	encrypted []string
	dead      []string // kind and body, sorted
	loose     bool     // device lists name a field twice: the splitter may bury what encoding/json takes, and nothing else
}

// readReference says with ok whether the body is a JSON object and nothing more.
func readReference(body []byte) (r reference, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if open, err := dec.Token(); !json.Valid(body) || err != nil || open != json.Delim('{') {
		return r, false
	}
	last := map[string]json.RawMessage{} // the last of each name that is not null, but for events, of which none is lost
	var pdus []string
	for dec.More() {
		name, _ := dec.Token()
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			panic(err) // it is valid
		}
		switch {
		case string(value) == "null":
		case name != "events":
			last[name.(string)] = value
		case value[0] != '[':
			r.burySection("events", value)
		default:
			for _, raw := range listOf(value) {
				pdus = append(pdus, r.pdu(raw)...)
			}
		}
	}
	section := func(spellings ...string) json.RawMessage {
		for _, s := range spellings {
			if last[s] != nil {
				return last[s]
			}
		}
		return nil
	}
	const msc3202, msc2409 = "org.matrix.msc3202.", "de.sorunome.msc2409."
	r.deviceLists(section("device_lists", msc3202+"device_lists"))
	r.keyCounts(
		section("device_one_time_keys_count", "device_one_time_key_counts", msc3202+"device_one_time_keys_count", msc3202+"device_one_time_key_counts"),
		section("device_unused_fallback_key_types", msc3202+"device_unused_fallback_key_types"))
	if list := section("to_device", msc2409+"to_device"); list != nil && list[0] != '[' {
		r.burySection("to_device", list)
	} else {
		for _, raw := range listOf(list) {
			r.toDevice(raw)
		}
	}
	if list := section("ephemeral", msc2409+"ephemeral"); list != nil && list[0] == '[' {
		for _, raw := range listOf(list) {
			r.ephemeral = append(r.ephemeral, string(raw))
		}
	}
	r.elements = append(r.elements, pdus...)
	slices.Sort(r.dead)
	return r, true
}

func listOf(value json.RawMessage) (list []json.RawMessage) {
	if value != nil {
		if err := json.Unmarshal(value, &list); err != nil {
			panic(err)
		}
	}
	return list
}

func (r *reference) bury(kind string, raw []byte) {
	r.dead = append(r.dead, kind+" "+string(raw))
}

func (r *reference) burySection(name string, value []byte) {
	r.bury("element", []byte(`{"`+name+`":`+string(value)+`}`))
}

func (r *reference) pdu(raw json.RawMessage) []string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil || fields == nil {
		r.bury("pdu", raw)
		return nil
	}
	id, goodID := readID(fields["event_id"])
	room, goodRoom := readID(fields["room_id"])
	_, goodSender := readID(fields["sender"])
	typ, goodType := readText(fields["type"])
	key, goodKey := readText(fields["state_key"])
	hasKey := fields["state_key"] != nil && string(fields["state_key"]) != "null"
	if !goodID || !goodRoom || !goodSender || !goodType || hasKey && !goodKey {
		r.bury("pdu", raw)
		return nil
	}
	if typ == "m.room.encryption" && hasKey && key == "" {
		r.encrypted = append(r.encrypted, room)
	}
	return []string{describeElement(store.KindPDU, roomLane+room, id, raw)}
}

func (r *reference) toDevice(raw json.RawMessage) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) == nil && fields != nil {
		user, ok1 := readID(fields["to_user_id"])
		device, ok2 := readID(fields["to_device_id"])
		_, ok3 := readID(fields["type"])
		_, ok4 := readID(fields["sender"])
		if ok1 && ok2 && ok3 && ok4 {
			r.elements = append(r.elements, describeElement(store.KindToDevice, deviceLane+user+"/"+device, "", raw))
			return
		}
	}
	r.bury("to_device", raw)
}

func (r *reference) deviceLists(raw json.RawMessage) {
	if raw == nil {
		return
	}
	var fields map[string]json.RawMessage
	var changed, left []string
	object := json.Unmarshal(raw, &fields) == nil
	for name, into := range map[string]*[]string{"changed": &changed, "left": &left} {
		if fields[name] != nil && json.Unmarshal(fields[name], into) != nil {
			object = false
		}
		r.loose = r.loose || countNames(raw, name) > 1
	}
	if !object {
		r.burySection("device_lists", raw)
	} else if len(changed)+len(left) > 0 {
		r.elements = append(r.elements, describeElement(store.KindDeviceLists, keysLane, "", raw))
	}
}

// countNames says how often an object has a name.
func countNames(object []byte, name string) (n int) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if open, _ := dec.Token(); open != json.Delim('{') {
		return 0
	}
	for dec.More() {
		var value json.RawMessage
		if got, _ := dec.Token(); got == name {
			n++
		}
		_ = dec.Decode(&value)
	}
	return n
}

func (r *reference) keyCounts(oneTime, fallback json.RawMessage) {
	parts := []string{}
	for _, part := range []struct {
		name string
		raw  json.RawMessage
	}{{"device_one_time_keys_count", oneTime}, {"device_unused_fallback_key_types", fallback}} {
		var fields map[string]json.RawMessage
		switch {
		case part.raw == nil:
		case json.Unmarshal(part.raw, &fields) != nil:
			r.burySection(part.name, part.raw)
		case len(fields) > 0:
			parts = append(parts, `"`+part.name+`":`+string(part.raw))
		}
	}
	if len(parts) > 0 {
		r.elements = append(r.elements, describeElement(store.KindKeyCounts, keysLane, "", []byte("{"+strings.Join(parts, ",")+"}")))
	}
}

func readText(raw json.RawMessage) (text string, ok bool) {
	return text, len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil
}

// readID reads an ID: text of 1 to 255 bytes that needs no replacement characters to be UTF-8, and has no NUL.
func readID(raw json.RawMessage) (text string, ok bool) {
	text, ok = readText(raw)
	return text, ok && text != "" && len(text) <= 255 && !strings.Contains(text, "\x00") && utf8.Valid(raw) && !loneSurrogate(string(raw))
}

func loneSurrogate(quoted string) bool {
	var high bool // an escaped first half comes right before
	for i := 0; i < len(quoted); i++ {
		if quoted[i] != '\\' {
			if high {
				return true
			}
			continue
		}
		i++
		if quoted[i] != 'u' {
			if high {
				return true
			}
			continue
		}
		code, _ := strconv.ParseUint(quoted[i+1:i+5], 16, 32)
		i += 4
		switch r := rune(code); {
		case high:
			if r < 0xDC00 || r > 0xDFFF {
				return true
			}
			high = false
		case utf16.IsSurrogate(r):
			if r >= 0xDC00 {
				return true
			}
			high = true
		}
	}
	return high
}

func describeElement(kind store.Kind, lane, key string, raw []byte) string {
	return fmt.Sprintf("%d in %q key %q: %s", kind, lane, key, raw)
}

// FuzzSplit_AgreesWithAFullDecoder holds the splitter against encoding/json: the same bodies are taken, and every element
// is found as an event, a to-device message, a key section, an ephemeral event or a dead letter, with the same lane and
// key, in the same order, byte for byte. The differences that are meant: nesting deeper than encoding/json reads, and so
// many bad elements that they share one dead letter (both have tests of their own); and a field of the device lists that
// comes twice, first wrongly.
func FuzzSplit_AgreesWithAFullDecoder(f *testing.F) {
	for _, seed := range splitSeeds() {
		f.Add([]byte(seed))
	}
	jsonLines(f, filepath.Join("testdata", "transactions.jsonl"), func(line []byte) {
		var tr transcribed
		if err := json.Unmarshal(line, &tr); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(tr.Body))
	})
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) > maxDepth-10 || bytes.Count(body, []byte(",")) >= maxBad {
			return
		}
		want, ok := readReference(body)
		got, err := splitTransaction("1", body)
		if (err == nil) != ok {
			t.Fatalf("%q: the splitter says %v, encoding/json takes it: %v", body, err, ok)
		}
		if err != nil {
			return
		}
		compareSplit(t, body, got, want)
	})
}

func compareSplit(t *testing.T, body []byte, got *contents, want reference) {
	t.Helper()
	var elements, ephemeral, dead []string
	keys := map[string]string{}
	for _, el := range got.elements {
		if !json.Valid(el.Raw) {
			t.Fatalf("the element %q is no JSON", el.Raw)
		}
		ev := newEvent(el)
		_, _ = ev.Decode() // must not panic
		compareEnvelope(t, el, ev)
		key := el.Key
		if el.Kind == store.KindToDevice {
			if other, there := keys[key]; there && other != string(el.Raw) || !strings.HasPrefix(key, "1\x00") {
				t.Fatalf("%q and %q have the key %q", el.Raw, other, key)
			}
			keys[key], key = string(el.Raw), ""
		}
		elements = append(elements, describeElement(el.Kind, el.Lane, key, el.Raw))
	}
	for _, raw := range got.ephemeral {
		ephemeral = append(ephemeral, string(raw))
	}
	for _, d := range got.dead {
		dead = append(dead, d.Kind+" "+string(d.Body))
		if text := d.Lane + d.Key + d.Cause; d.Cause == "" || !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			t.Fatalf("not every store takes the dead letter %+v", d)
		}
		compareReplayed(t, &d)
	}
	slices.Sort(dead)
	if want.loose {
		drop := func(list []string) []string {
			return slices.DeleteFunc(list, func(s string) bool {
				return strings.HasPrefix(s, fmt.Sprintf("%d in ", store.KindDeviceLists)) || strings.HasPrefix(s, "element ")
			})
		}
		elements, dead, want.elements, want.dead = drop(elements), drop(dead), drop(want.elements), drop(want.dead)
	}
	for _, c := range []struct {
		what      string
		got, want []string
	}{{"elements", elements, want.elements}, {"ephemeral events", ephemeral, want.ephemeral}, {"encrypted rooms", got.encrypted, want.encrypted}, {"dead letters", dead, want.dead}} {
		if !slices.Equal(c.got, c.want) {
			t.Fatalf("%q\ngave the %s\n%q\nand should\n%q", body, c.what, c.got, c.want)
		}
	}
}

// compareReplayed makes sure that a dead letter is, when it is replayed, what it was: as bad, for the same cause.
func compareReplayed(t *testing.T, d *store.DeadLetter) {
	t.Helper()
	body, err := letterTransaction(d)
	if err != nil {
		t.Fatalf("%+v: %v", d, err)
	}
	c, err := splitTransaction(d.Key, body)
	if err != nil || len(c.elements) > 0 || len(c.dead) != 1 || c.dead[0].Kind != d.Kind || c.dead[0].Lane != d.Lane || string(c.dead[0].Body) != string(d.Body) {
		t.Fatalf("the dead letter %+v is read again as %+v, %v", d, c, err)
	}
}

// compareEnvelope holds what a handler is told of an element against encoding/json.
func compareEnvelope(t *testing.T, el store.Element, ev *Event) {
	t.Helper()
	if el.Kind != store.KindPDU && el.Kind != store.KindToDevice {
		return
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(el.Raw, &fields); err != nil {
		t.Fatalf("%q: %v", el.Raw, err)
	}
	check := func(name, got string) {
		// Of text that is not UTF-8 the two may replace more or less.
		if want, _ := readText(fields[name]); got != want && utf8.Valid(fields[name]) && !loneSurrogate(string(fields[name])) {
			t.Fatalf("%s of %q is %q", name, el.Raw, got)
		}
	}
	check("type", ev.Type)
	check("sender", string(ev.Sender))
	if el.Kind == store.KindToDevice {
		check("to_user_id", string(ev.ToUserID))
		check("to_device_id", string(ev.ToDeviceID))
		return
	}
	check("event_id", string(ev.ID))
	check("room_id", string(ev.RoomID))
	_, isState := readText(fields["state_key"])
	if isState != (ev.StateKey != nil) {
		t.Fatalf("the state key of %q is %v", el.Raw, ev.StateKey)
	}
	if isState {
		check("state_key", *ev.StateKey)
	}
}

func splitSeeds() []string {
	seeds := []string{
		events(message("$1"), message("$2")),
		`{"events":[{"event_id":"a","event_id":"b","room_id":"!r","type":"t","sender":"s","state_key":null}],"events":[],"events":5,"events":[` + message("$c") + `]}`,
		`{"a":"\ud800","events":{}} x`,
		`{"\u0065vents":[` + message(`$\ud800`) + `,` + message("$\xff") + `,` + message(`$\ufffd\\ufffd`) + `,` + message(strings.Repeat("x", 256)) + `]}`,
		`{"to_device":[{"type":"t","sender":"s","to_user_id":"@u:h","to_device_id":"D"},5],"device_lists":{"changed":["@a:b"],"left":null},"device_one_time_key_counts":{"@u:h":{"D":{}}},"device_unused_fallback_key_types":{},"ephemeral":[{"type":"m.typing"},null],"events":[]}`,
		`{"org.matrix.msc3202.device_lists":{"left":[5]},"org.matrix.msc3202.device_one_time_keys_count":[],"device_unused_fallback_key_types":{"@u:h":{"D":["x"]}},"de.sorunome.msc2409.to_device":{},"de.sorunome.msc2409.ephemeral":[1 , 2]}`,
		`{"events":[{"type":"m.room.encryption","state_key":"","event_id":"$e","room_id":"!r","sender":"@s:h"}]}`,
	}
	for _, bad := range poison {
		seeds = append(seeds, events(message("$1"), bad, message("$2")))
	}
	return seeds
}
