package appservice

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

// nested is an event that is nested so deeply, itself included.
func nested(eventID string, depth int) string {
	return strings.Replace(message(eventID), `"age":151,"content"`,
		`"x":`+strings.Repeat("[", depth-1)+`"]\"["`+strings.Repeat("]", depth-1)+`,"content"`, 1)
}

func TestSplit_TooDeepElement_IsBuriedAndItsNeighboursAreHandled(t *testing.T) {
	f := newFixture(t, nil)
	const fits = maxDepth - 2 // the body and its list are two levels
	f.mustPut("1", `{"to_device":[`+nested("$t", fits+1)+`],"unknown":`+strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth)+
		`,"events":[`+message("$1")+`, `+nested("$deep", fits+1)+` ,`+nested("$fits", fits)+`,`+message("$2")+
		`],"device_lists":{"changed":`+strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth)+`}}`)
	f.idle()
	if got := f.rec.ids(); got != "$1 $fits $2" {
		t.Errorf("handled %q", got)
	}
	kinds := map[string]bool{}
	for _, d := range f.deadLetters() {
		kinds[d.Kind] = true
		if !strings.Contains(d.Cause, "levels deep") {
			t.Errorf("%s %s: %s", d.Kind, d.Key, d.Cause)
		}
		if d.Kind == "pdu" && string(d.Body) != nested("$deep", fits+1) {
			t.Errorf("buried %.100q", d.Body)
		}
	}
	if fmt.Sprint(kinds) != "map[element:true pdu:true to_device:true]" {
		t.Errorf("buried %v", kinds)
	}
}

func TestSplit_IDsThatAreNotUTF8_AreBuriedEachAndNeverTakenForOneAnother(t *testing.T) {
	for what, ids := range map[string][2]string{"surrogates": {`$a\ud800`, `$a\ud801`}, "bytes": {"$a\xff", "$a\xfe"}} {
		for field, name := range map[string]string{"event": "$ID", "room": testRoom, "sender": "@bob:hs.test"} {
			f := newFixture(t, nil)
			f.mustPut("1", events(strings.ReplaceAll(message("$ID"), name, ids[0]), strings.ReplaceAll(message("$ID"), name, ids[1])))
			f.idle()
			if dead := f.deadLetters(); len(dead) != 2 || f.rec.ids() != "" {
				t.Errorf("%s in the %s ID: handled %q, %d dead letters", what, field, f.rec.ids(), len(dead))
			}
		}
	}
}

func TestSplit_IDsThatAreTooLong_AreBuried(t *testing.T) {
	for name, c := range map[string]struct{ old, begin, end string }{
		"event": {"$1", "$", ""}, "room": {testRoom, "!", ":hs.test"}, "sender": {"@bob:hs.test", "@", ":hs.test"},
	} {
		id := func(size int) string { return c.begin + strings.Repeat("x", size-len(c.begin)-len(c.end)) + c.end }
		got, err := splitTransaction("1", []byte(events(strings.ReplaceAll(message("$1"), c.old, id(255)), strings.ReplaceAll(message("$1"), c.old, id(256)))))
		if err != nil || len(got.elements) != 1 || len(got.dead) != 1 || len(got.dead[0].Lane)+len(got.dead[0].Key) > 500 {
			t.Errorf("%s: %d elements, dead %+v, %v", name, len(got.elements), got.dead, err)
		}
	}
}

func TestSplit_EscapedNameOfASection_IsRead(t *testing.T) {
	got, err := splitTransaction("1", []byte(`{"\u0065vents":[`+message("$1")+`]}`))
	if err != nil || len(got.elements) != 1 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestSplit_NothingButNonsense_IsOneDeadLetter(t *testing.T) {
	f := newFixture(t, nil)
	list := make([]string, maxBad+1)
	for i := range list {
		list[i] = fmt.Sprint(i)
	}
	body := `{"to_device":["x"],"device_lists":5,"events":[` + strings.Join(list, ",") + `,` + message("$1") + `]}`
	f.mustPut("1", body)
	f.mustPut("1", body)
	f.idle()
	dead := f.deadLetters()
	var back struct {
		Events   []any `json:"events"`
		ToDevice []any `json:"to_device"`
		Lists    any   `json:"device_lists"`
	}
	if len(dead) != 1 || json.Unmarshal(dead[0].Body, &back) != nil || len(back.Events) != len(list) || len(back.ToDevice) != 1 || back.Lists != 5.0 || f.rec.ids() != "$1" {
		t.Errorf("%d dead letters, in the first %+v, handled %q", len(dead), back, f.rec.ids())
	}
	if got, _ := splitTransaction("1", []byte(events(list[:maxBad]...))); len(got.dead) != maxBad {
		t.Errorf("%d dead letters of as many as are allowed", len(got.dead))
	}
}

func TestWorker_BurialWhoseEffectsFail_IsMadeWithoutThem(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Handler = burier{c.Handler.(*recorder)} })
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { return nil, Permanent(errTest) }
	f.mustPut("1", events(`{"type":"m.room.member","event_id":"$k","room_id":"`+testRoom+`","sender":"@op:hs.test","state_key":"@irc_a:hs.test","content":{"membership":"leave"}}`))
	f.idle()
	if dead := f.deadLetters(); len(dead) != 1 {
		t.Errorf("%+v", dead)
	}
	if m, _ := f.store.Member(context.Background(), testRoom, "@irc_a:hs.test"); m != "" {
		t.Errorf("an effect was written: %q", m)
	}
}

// burier is a handler whose burials have an effect that always fails.
type burier struct{ *recorder }

func (burier) Buried(context.Context, *Event, error) []Effect {
	return []Effect{func(*store.Tx) error { return errTest }}
}
