package soundjson_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/trestle-bridge/trestle/internal/soundjson"
)

var objects = []string{
	`{}`, "{ \t\r\n}", `{"a":"b"}`, "{ \"a\"\n:\t\"b\" , \"c\" : \"d\" }", `{"a":"b","a":12}`, `{"t\u0079pe":"a"}`,
	`{"x":"\"type\":\"no\"","type":"\\"}`, `{"x":"\\\"","type":"a\\\\","sender":"\\\""}`, `{"\"":1,"\\":2}`,
	`{"content":{"type":"no","x":[{"type":"no"}]},"type":null}`, `{"content":{"b":"}]\"{["},"x":[[],[1,"]"]],"state_key":""}`,
	`{"room_id":{"event_id":"no"},"event_id":[1,2] ,"type":-1.5e3}`, `{"a":[] , "b" : { } ,"c":true,"d":false}`,
}

// FuzzMembers_SoundObject_AgreesWithAReader: put together again, the members are the same object to a full reader.
func FuzzMembers_SoundObject_AgreesWithAReader(f *testing.F) {
	for _, object := range objects {
		f.Add([]byte(object))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		var again bytes.Buffer
		n := 0
		again.WriteByte('{')
		for name, value := range soundjson.Members(object) {
			if n++; n > 1 {
				again.WriteByte(',')
			}
			again.Write(name)
			again.WriteByte(':')
			again.Write(value)
		}
		again.WriteByte('}')
		if len(object) == 0 || object[0] != '{' || !json.Valid(object) {
			return // nothing to agree with; it has not panicked
		}
		var want, got bytes.Buffer
		if err := json.Compact(&want, object); err != nil {
			t.Fatal(err)
		}
		if err := json.Compact(&got, again.Bytes()); err != nil {
			t.Fatalf("%q became %q: %v", object, again.Bytes(), err)
		}
		if !bytes.Equal(want.Bytes(), got.Bytes()) {
			t.Fatalf("%q became %q", object, again.Bytes())
		}
	})
}

func TestMembers_Unsound_DoesNoHarm(t *testing.T) {
	const sound = `{ "type" : "a\\" , "content":{"x":["\"",{}]},"state_key":"","sender":"b"}`
	for n := range len(sound) {
		for _, object := range []string{sound[:n], sound[:n] + `"`, sound[:n] + `}`, sound[:n] + `\`, sound[n:]} {
			for name := range soundjson.Members([]byte(object)) {
				if len(name) > len(object) {
					t.Errorf("%q has a name %q", object, name)
				}
			}
		}
	}
}
