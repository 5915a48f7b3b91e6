package appservice

import (
	"fmt"
	"strings"
	"testing"

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
