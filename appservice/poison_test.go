package appservice

import (
	"fmt"
	"strings"
	"testing"
)

// poison is what must not harm its neighbours: fields to put into an event, or an element in its place.
var poison = []string{
	`{"redacts":5}`, `{"origin_server_ts":1.5}`, `{"origin_server_ts":1e20}`, `{"content":[]}`, `{"unsigned":{"age":1.5}}`,
	`{"unsigned":{"membership":5}}`, `{"sender":5}`, `{"prev_content":"x"}`, `{"msc4354_sticky":5}`, `5`, `"str"`, `null`, `[]`, `{}`,
	`{"event_id":null}`, `{"event_id":5}`, `{"event_id":""}`, `{"room_id":[]}`, `{"type":{}}`, `{"state_key":5}`, `{"event_id":"$\u0000"}`,
}

func TestA24_PoisonEvent_GoesToTheDeadLettersAndItsNeighboursAreDelivered(t *testing.T) {
	for _, bad := range poison {
		t.Run(bad, func(t *testing.T) {
			f := newFixture(t, nil)
			f.rec.handle = decodeAll
			element := bad
			if strings.HasPrefix(bad, `{"`) { // a whole event with a field that is wrong: of two of a name, the last counts
				good := message("$bad")
				element = good[:len(good)-1] + "," + bad[1:]
			}
			f.mustPut("1", events(message("$1"), element, message("$2")))
			f.idle()
			if got := strings.ReplaceAll(f.rec.ids(), "$bad ", ""); got != "$1 $2" {
				t.Errorf("handled %s", got)
			}
			dead := f.deadLetters()
			if len(dead) != 1 || string(dead[0].Body) != element || dead[0].Kind != "pdu" || dead[0].Cause == "" {
				t.Errorf("dead letters %+v", dead)
			}
			f.mustPut("2", events(message("$3")))
			f.idle()
		})
	}
}

func TestA24_BodyThatIsNoTransaction_IsADeadLetterAnd200(t *testing.T) {
	f := newFixture(t, nil)
	bodies := []string{``, `nonsense`, `[]`, `5`, `null`, `{"events":[{]}`, `{"events":[]} {}`, `{"events":[` + message("$1")}
	for i, body := range bodies {
		f.mustPut(fmt.Sprint(i), body)
	}
	f.mustPut("wrong-sections", `{"events":{},"to_device":5,"device_lists":[],"device_one_time_keys_count":5,"ephemeral":7}`)
	dead := f.deadLetters()
	if len(dead) != len(bodies)+4 {
		t.Fatalf("%d dead letters, want %d: %+v", len(dead), len(bodies)+4, dead)
	}
	for i, body := range bodies {
		if dead[i].Kind != "body" || string(dead[i].Body) != body {
			t.Errorf("dead letter %+v for body %q", dead[i], body)
		}
	}
	if f.rec.ids() != "" {
		t.Errorf("handled %s", f.rec.ids())
	}
}
