package appservice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/trestle-bridge/trestle/store"
)

func TestSplit_CaseVariantNames_DoNotOverride(t *testing.T) {
	c, err := splitTransaction("1", []byte(`{"Events":[5],"EVENTS":7,"events":[{"event_id":"$a","Event_ID":"$b","EVENT_ID":"$c","room_id":"!r","Room_Id":5,"type":"m.x","sender":"@a:b"}]}`))
	if err != nil || len(c.elements) != 1 || len(c.dead) != 0 || c.elements[0].Key != "$a" {
		t.Errorf("%+v %v", c, err)
	}
}

func TestSplit_EscapedNamesAndValues_AreRead(t *testing.T) {
	c, err := splitTransaction("1", []byte(`{"events":[{"\u0065vent_id":"$\u0061\/","room_id":"!r","type":"m.x","sender":"@a:b"}]}`))
	if err != nil || len(c.elements) != 1 || c.elements[0].Key != "$a/" {
		t.Errorf("%+v %v", c, err)
	}
}

func TestSplit_WhiteSpace_StaysOutOfTheElements(t *testing.T) {
	one, two := `{ "event_id" : "$1", "room_id":"!r","type":"t","sender":"s" }`, `{"event_id":"$2","room_id":"!r","type":"t","sender":"s","content":{"a":[1,{"b":", "}]}}`
	c, err := splitTransaction("1", []byte(" { \"events\" : [ \n"+one+" ,\r\n\t"+two+" ] } \n"))
	if err != nil || len(c.elements) != 2 || string(c.elements[0].Raw) != one || string(c.elements[1].Raw) != two {
		t.Errorf("%+v %v", c, err)
	}
}

func TestSplit_InvalidUTF8AndDeepNesting_AreTaken(t *testing.T) {
	deep := strings.Repeat(`{"a":[`, 100) + `123456789012345678901234567890` + strings.Repeat(`]}`, 100)
	body := `{"events":[{"event_id":"$1","room_id":"!r","type":"t","sender":"s","content":{"b":"` + "\xff\xfe" + `","d":` + deep + `}}]}`
	c, err := splitTransaction("1", []byte(body))
	if err != nil || len(c.elements) != 1 {
		t.Fatalf("%+v %v", c, err)
	}
	ev := newEvent(c.elements[0])
	if _, err := ev.Decode(); err != nil {
		t.Error(err)
	}
}

func TestK3_ToDeviceAndDeviceLists_ComeBeforeEvents(t *testing.T) {
	c, err := splitTransaction("1", []byte(`{"events":[`+message("$1")+`],"to_device":[{"type":"t","sender":"s","to_user_id":"@u:h","to_device_id":"D","content":{}}],"device_lists":{"changed":["@a:b"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []store.Kind
	for _, el := range c.elements {
		kinds = append(kinds, el.Kind)
	}
	if fmt.Sprint(kinds) != fmt.Sprint([]store.Kind{store.KindDeviceLists, store.KindToDevice, store.KindPDU}) {
		t.Errorf("the order is %v", kinds)
	}
}

func TestA6_BothSpellings_OnlyTheStableOneCounts(t *testing.T) {
	c, err := splitTransaction("1", []byte(`{"de.sorunome.msc2409.ephemeral":[{"type":"old"}],"ephemeral":[{"type":"new"}],"to_device":[],"de.sorunome.msc2409.to_device":[{"type":"t","sender":"s","to_user_id":"@u:h","to_device_id":"D"}]}`))
	if err != nil || len(c.ephemeral) != 1 || string(c.ephemeral[0]) != `{"type":"new"}` || len(c.elements) != 0 {
		t.Errorf("%+v %v", c, err)
	}
}

func TestSplit_ToDeviceWithoutItsDevice_IsADeadLetter(t *testing.T) {
	c, err := splitTransaction("1", []byte(`{"to_device":[5,{"type":"t","sender":"s","to_user_id":"@u:h"},{"type":"t","sender":"s","to_user_id":"@u:h","to_device_id":5},{"type":"t","sender":"s","to_user_id":"@u:h","to_device_id":"D"}]}`))
	if err != nil || len(c.dead) != 3 || len(c.elements) != 1 || c.dead[0].Kind != "to_device" {
		t.Errorf("%+v %v", c, err)
	}
}

// reference takes a transaction apart with encoding/json: slowly, and by other means.
func reference(body []byte) (ids []string, dead int, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, 0, false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, 0, false
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, 0, false
		}
		if name != "events" || string(value) == "null" {
			continue
		}
		var list []json.RawMessage
		if json.Unmarshal(value, &list) != nil {
			dead++
			continue
		}
		for _, raw := range list {
			var fields map[string]any
			if json.Unmarshal(raw, &fields) != nil || fields == nil {
				dead++
				continue
			}
			id, isText := fields["event_id"].(string)
			room, roomIsText := fields["room_id"].(string)
			typ, typIsText := fields["type"].(string)
			sender, senderIsText := fields["sender"].(string)
			_ = typ
			key, hasKey := fields["state_key"]
			_, keyIsText := key.(string)
			if !exactID(raw, "event_id") || !exactID(raw, "room_id") || !exactID(raw, "sender") {
				dead++
				continue
			}
			if !isText || id == "" || !roomIsText || room == "" || !typIsText || !senderIsText || sender == "" ||
				hasKey && key != nil && !keyIsText || strings.ContainsRune(id+room+sender, 0) {
				dead++
				continue
			}
			ids = append(ids, id+" "+room)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, 0, false
	}
	_, err := dec.Token()
	return ids, dead, err != nil && err.Error() == "EOF"
}

var escapedReplacement = regexp.MustCompile(`(?i)\\ufffd`)

// exactID says whether a text is an ID of a size that is allowed and nothing of it is replaced when it is read; true for
// what is no text.
func exactID(element []byte, name string) bool {
	var fields map[string]json.RawMessage
	var text string
	_ = json.Unmarshal(element, &fields)
	raw := fields[name]
	if json.Unmarshal(raw, &text) != nil {
		return true
	}
	plain := strings.ReplaceAll(string(raw), `\\`, "")
	meant := strings.Count(plain, "\uFFFD") + len(escapedReplacement.FindAllString(plain, -1))
	return utf8.Valid(raw) && strings.Count(text, "\uFFFD") == meant && len(text) <= 255
}

func FuzzSplit_AgreesWithAFullDecoder(f *testing.F) {
	f.Add([]byte(events(message("$1"), message("$2"))))
	for _, bad := range poison {
		f.Add([]byte(events(message("$1"), bad, message("$2"))))
	}
	f.Add([]byte(`{"events":[{"event_id":"a","event_id":"b","room_id":"!r","type":"t","sender":"s","state_key":null}],"events":[]}`))
	f.Add([]byte(`{"a":"\ud800","events":{}} x`))
	f.Add([]byte(`{"\u0065vents":[` + message(`$\ud800`) + `,` + message("$\xff") + `,` + message(`$\ufffd\\ufffd`) + `,` + message(strings.Repeat("x", 256)) + `]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) > 9000 || bytes.Count(body, []byte(",")) > 1000 {
			return // that is what other tests are for
		}
		want, wantDead, ok := reference(body)
		got, err := splitTransaction("1", body)
		if err != nil {
			// encoding/json is the laxer one in nothing that a homeserver could send but depth.
			if ok && !strings.Contains(err.Error(), "depth") {
				t.Fatalf("refused %q: %v", body, err)
			}
			return
		}
		if !ok {
			t.Fatalf("took %q, which is no JSON object", body)
		}
		var ids []string
		for _, el := range got.elements {
			if el.Kind != store.KindPDU {
				continue
			}
			ids = append(ids, el.Key+" "+strings.TrimPrefix(el.Lane, roomLane))
			if !json.Valid(el.Raw) || !bytes.Contains(body, el.Raw) {
				t.Fatalf("the element %q is not what was sent", el.Raw)
			}
			_, _ = newEvent(el).Decode() // must not panic
		}
		dead := 0
		for _, d := range got.dead {
			if d.Kind == "pdu" || d.Kind == "element" && strings.HasPrefix(d.Cause, "events ") {
				dead++
			}
		}
		if !reflect.DeepEqual(ids, want) || dead != wantDead {
			t.Fatalf("%q: got %q and %d dead, want %q and %d", body, ids, dead, want, wantDead)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	var list []string
	for i := range 100 {
		list = append(list, strings.Replace(messageIn(fmt.Sprintf("!room%d:hs.test", i%50), fmt.Sprintf("$event%043d", i)), "three", strings.Repeat("word ", 60), 1))
	}
	body := []byte(events(list...))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if c, err := splitTransaction("1", body); err != nil || len(c.elements) != 100 {
			b.Fatal(err)
		}
	}
}

func TestDecode_ContentIsReadWithExactNames(t *testing.T) {
	ev := newEvent(store.Element{Kind: store.KindPDU, Lane: "room:!r", Key: "$1", Raw: []byte(
		`{"event_id":"$1","Event_ID":"$2","room_id":"!r","type":"m.room.message","Type":"m.room.topic","sender":"@a:b","Sender":"@evil:b","content":{"msgtype":"m.text","body":"good","Body":"evil"},"origin_server_ts":1795279674450,"unsigned":{"age":151}}`)})
	got, err := ev.Decode()
	if err != nil {
		t.Fatal(err)
	}
	if m := got.Content.AsMessage(); m.Body != "good" || got.Sender != "@a:b" || got.ID != "$1" || got.Type.Type != "m.room.message" || got.Unsigned.Age != 151 {
		t.Errorf("%+v", got)
	}
}

func TestDecode_Redaction_FindsItsTargetInTheContent(t *testing.T) {
	ev := newEvent(store.Element{Kind: store.KindPDU, Raw: []byte(`{"event_id":"$1","room_id":"!r","type":"m.room.redaction","sender":"@a:b","content":{"redacts":"$x"}}`)})
	if got, err := ev.Decode(); err != nil || got.Redacts != "$x" {
		t.Errorf("%+v %v", got, err)
	}
}
