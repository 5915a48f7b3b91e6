package appservice

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

// decodeAll is a handler that decodes everything, as a bridge does.
func decodeAll(_ context.Context, ev *Event) ([]Effect, error) {
	if ev.Kind != store.KindPDU && ev.Kind != store.KindToDevice {
		return nil, nil
	}
	_, err := ev.Decode()
	return nil, err
}

// hostile are events that no homeserver should send. Those that are taken reach the handler; the others are buried.
var hostile = []struct {
	name, element string
	taken         bool
}{
	{"nested 9990 levels deep", nested("$bad", 9990), true},
	{"nested 20000 levels deep", nested("$bad", 20_000), false},
	{"objects nested 20000 levels deep", strings.Replace(message("$bad"), `"age":151,"content"`, `"x":`+strings.Repeat(`{"a":`, 20_000)+`1`+strings.Repeat(`}`, 20_000)+`,"content"`, 1), false},
	{"content nested 9000 levels deep", with("$bad", `"content":{"x":`+strings.Repeat("[", 9000)+strings.Repeat("]", 9000)+`}`), true},
	{"an ID twice", with("$bad", `"event_id":"$bad2"`), true},
	{"content twice", with("$bad", `"content":{"body":"second"}`), true},
	{"content with a name twice", with("$bad", `"content":{"body":"a","body":"b"}`), true},
	{"text that is not UTF-8", with("$bad", "\"content\":{\"body\":\"\xff\xc0\x80\xed\xa0\x80\"}"), true},
	{"a name that is not UTF-8", with("$bad", "\"content\":{\"b\xff\":1,\"b\xfe\":2}"), true},
	{"half a surrogate in text", with("$bad", `"content":{"body":"\ud83d"}`), true},
	{"half a surrogate in the ID", with("$bad", `"event_id":"$\ud83d"`), false},
	{"a number with 400 digits", with("$bad", `"content":{"n":`+strings.Repeat("9", 400)+`}`), false},
	{"a number beyond 64 bits", with("$bad", `"content":{"n":18446744073709551616}`), true},
	{"a number beyond any float", with("$bad", `"content":{"n":1e400}`), false},
	{"a time beyond 64 bits", with("$bad", `"origin_server_ts":9223372036854775808`), false},
	{"a time before all time", with("$bad", `"origin_server_ts":-9223372036854775808`), true},
	{"NUL in text", with("$bad", `"content":{"body":"a\u0000b"},"type":"a\u0000b"`), true},
	{"NUL in a state key", with("$bad", `"state_key":"a\u0000b"`), true},
	{"NUL in a room ID", with("$bad", `"room_id":"!a\u0000b"`), false},
	{"NUL in a sender", with("$bad", `"sender":"@a\u0000b:c"`), false},
	{"an event ID of 255 bytes", with("$bad", `"event_id":"$`+strings.Repeat("x", 254)+`"`), true},
	{"an event ID of 256 bytes", with("$bad", `"event_id":"$`+strings.Repeat("x", 255)+`"`), false},
	{"an event ID of 256 bytes in 128 letters", with("$bad", `"event_id":"`+strings.Repeat("é", 128)+`"`), false},
	{"an event ID of 254 bytes in 127 escapes", with("$bad", `"event_id":"`+strings.Repeat(`\u00e9`, 127)+`"`), true},
	{"a room ID of 256 bytes", with("$bad", `"room_id":"!`+strings.Repeat("x", 255)+`"`), false},
	{"a sender of 256 bytes", with("$bad", `"sender":"@`+strings.Repeat("x", 255)+`"`), false},
	{"a state key and a type of 70000 bytes", with("$bad", `"state_key":"`+strings.Repeat("x", 70_000)+`","type":"`+strings.Repeat("y", 70_000)+`"`), true},
	{"a name of 70000 bytes", with("$bad", `"`+strings.Repeat("x", 70_000)+`":1`), true},
	{"no content", strings.Replace(message("$bad"), `"content"`, `"Content"`, 1), true},
	{"an ID that is an object", with("$bad", `"event_id":{"$ref":"$1"}`), false},
	{"a list in a list", `[[` + message("$bad") + `]]`, false},
	{"a number with a hundred thousand digits", strings.Repeat("1", 100_000), false},
}

// with is an event with fields that take the place of those it has.
func with(eventID, fields string) string {
	good := message(eventID)
	return good[:len(good)-1] + "," + fields + "}"
}

func TestA24_HostileEvent_HarmsNoNeighbour(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.rec.handle = decodeAll
			f.mustPut("1", events(message("$1"), c.element, message("$2")))
			f.idle()
			got := " " + f.rec.ids() + " "
			if strings.Count(got, " $1 ") != 1 || strings.Count(got, " $2 ") != 1 {
				t.Errorf("of the neighbours were handled%.200s", got)
			}
			dead := f.deadLetters()
			if c.taken && (len(dead) != 0 || len(f.rec.waitEvents(3)) != 3) {
				t.Errorf("it was not taken: %.500v", dead)
			}
			if !c.taken && (len(dead) != 1 || string(dead[0].Body) != c.element || dead[0].Kind != "pdu") {
				t.Errorf("it was not buried whole: %d dead letters", len(dead))
			}
			f.mustPut("1", events(message("$1"), c.element, message("$3"))) // the homeserver goes on
			f.idle()
		})
	}
}

func TestA24_PoisonInEverySection_HarmsNoNeighbour(t *testing.T) {
	toDevice := func(device string) string {
		return `{"content":{},"sender":"@bob:hs.test","to_device_id":"` + device + `","to_user_id":"@irc_a:hs.test","type":"m.room_key"}`
	}
	all := append([]string{`{"to_user_id":5}`, `{"to_device_id":null}`, `{"content":{"user_ids":5},"room_id":"!r","type":"m.typing"}`, `"` + "\xff" + `"`}, poison...)
	for _, c := range hostile {
		all = append(all, c.element)
	}
	f := newFixture(t, nil)
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if ev.Kind == store.KindToDevice && ev.ToDeviceID != "D1" && ev.ToDeviceID != "D2" {
			t.Errorf("a message for %q was made of poison", ev.ToDeviceID)
		}
		return decodeAll(ctx, ev)
	}
	for i, bad := range all {
		f.mustPut(fmt.Sprint("poison", i), `{"events":[`+message(fmt.Sprint("$good1-", i))+`,`+bad+`,`+message(fmt.Sprint("$good2-", i))+`],"to_device":[`+
			toDevice("D1")+`,`+bad+`,`+toDevice("D2")+`],"ephemeral":[`+typing("@bob:hs.test")+`,`+bad+`,`+present(fmt.Sprintf("@u%d:x", i))+`]}`)
		f.idle()
		f.rec.waitFor(func() bool { return lastPresence(f.rec.ephemerals) == userID(fmt.Sprintf("@u%d:x", i)) })
	}
	var toDevices, neighbours int
	for _, ev := range f.rec.waitEvents(0) {
		switch {
		case ev.Kind == store.KindToDevice:
			toDevices++
		case strings.HasPrefix(string(ev.ID), "$good"):
			neighbours++
		}
	}
	if toDevices != 2*len(all) || neighbours != 2*len(all) {
		t.Errorf("%d to-device messages and %d events of %d each were handled", toDevices, neighbours, 2*len(all))
	}
}

func TestA24_BodyOf64MiB_IsTaken(t *testing.T) {
	f := newFixture(t, nil)
	head := `{"events":[` + message("$1") + `,{"event_id":"$2","room_id":"!r","type":"t","sender":"s","content":{"x":"`
	tail := `"}}]}`
	body := head + strings.Repeat("x", 64<<20-len(head)-len(tail)) + tail
	f.mustPut("1", body)
	f.idle()
	if got := f.rec.ids(); len(got) != len("$1 $2") {
		t.Errorf("handled %q", got)
	}
	if code, answer := f.put("2", body+" "); code != 413 || !strings.Contains(answer, "M_TOO_LARGE") {
		t.Errorf("a byte more was answered %d %s", code, answer)
	}
}

func TestA24_HeadersOfTheBody_DecideNothing(t *testing.T) {
	f := newFixture(t, nil)
	server := httptest.NewServer(f.as)
	defer server.Close()
	put := func(txnID string, body io.Reader, header ...string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPut, server.URL+"/_matrix/app/v1/transactions/"+txnID, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testHSToken)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(answer) != "{}" {
			t.Errorf("%v was answered %d %s", header, resp.StatusCode, answer)
		}
	}
	put("1", strings.NewReader(events(message("$plain"))), "Content-Type", "text/plain; charset=latin1")
	put("2", strings.NewReader(events(message("$none"))), "Content-Type", "")
	put("3", io.MultiReader(strings.NewReader(events(message("$chunked")))), "Content-Type", "application/json") // no length
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write([]byte(events(message("$packed"))))
	_ = w.Close()
	body := packed.String()
	put("4", strings.NewReader(body), "Content-Encoding", "gzip")
	f.idle()
	if got := f.rec.ids(); got != "$plain $none $chunked" {
		t.Errorf("handled %q", got)
	}
	// No homeserver packs its transactions, so they are not unpacked either; but what came is kept.
	if dead := f.deadLetters(); len(dead) != 1 || string(dead[0].Body) != body || dead[0].Kind != "body" {
		t.Errorf("dead letters %+v", dead)
	}
}
