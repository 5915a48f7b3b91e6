package appservice

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestEnvelope_OddButSoundObjects_GiveTheLastOfEachName(t *testing.T) {
	for object, want := range map[string]envelope{
		`{}`:           {},
		"{ \t\r\n}":    {},
		`{"type":"a"}`: {typ: jsontext.Value(`"a"`)},
		"{ \"type\"\n:\t\"a\" , \"sender\" : \"b\" }":                   {typ: jsontext.Value(`"a"`), sender: jsontext.Value(`"b"`)},
		`{"type":"a","type":12}`:                                        {typ: jsontext.Value(`12`)},
		`{"t\u0079pe":"a"}`:                                             {typ: jsontext.Value(`"a"`)},
		`{"x":"\"type\":\"no\"","type":"\\"}`:                           {typ: jsontext.Value(`"\\"`)},
		`{"x":"\\\"","type":"a\\\\","sender":"\\\""}`:                   {typ: jsontext.Value(`"a\\\\"`), sender: jsontext.Value(`"\\\""`)},
		`{"content":{"type":"no","x":[{"type":"no"}]},"type":null}`:     {typ: jsontext.Value(`null`)},
		`{"content":{"b":"}]\"{["},"x":[[],[1,"]"]],"state_key":""}`:    {stateKey: jsontext.Value(`""`)},
		`{"room_id":{"event_id":"no"},"event_id":[1,2] ,"type":-1.5e3}`: {roomID: jsontext.Value(`{"event_id":"no"}`), eventID: jsontext.Value(`[1,2]`), typ: jsontext.Value(`-1.5e3`)},
	} {
		var got envelope
		got.read([]byte(object))
		for name, pair := range map[string][2]jsontext.Value{
			"event_id": {got.eventID, want.eventID}, "room_id": {got.roomID, want.roomID}, "type": {got.typ, want.typ},
			"sender": {got.sender, want.sender}, "state_key": {got.stateKey, want.stateKey},
		} {
			if string(pair[0]) != string(pair[1]) {
				t.Errorf("%s of %s is %q, want %q", name, object, pair[0], pair[1])
			}
		}
	}
}
