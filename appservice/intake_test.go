package appservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

func TestA22_HSToken_MissingIs401WrongIs403(t *testing.T) {
	f := newFixture(t, nil)
	path := "/_matrix/app/v1/transactions/1"
	for _, c := range []struct {
		name, path, auth string
		status           int
		code             string
	}{
		{"right", path, "Bearer " + testHSToken, 200, ""},
		{"scheme in lower case", path, "bearer " + testHSToken, 200, ""},
		{"missing", path, "", 401, "M_MISSING_TOKEN"},
		{"another scheme", path, "Basic " + testHSToken, 401, "M_MISSING_TOKEN"},
		{"wrong", path, "Bearer nope", 403, "M_FORBIDDEN"},
		{"empty", path, "Bearer ", 403, "M_FORBIDDEN"},
		{"only in the query, not configured", path + "?access_token=" + testHSToken, "", 401, "M_MISSING_TOKEN"},
		{"wrong in the query, not configured", path + "?access_token=nope", "Bearer " + testHSToken, 200, ""},
	} {
		code, body := f.do(http.MethodPut, c.path, `{"events":[]}`, c.auth)
		if code != c.status || !strings.Contains(body, c.code) {
			t.Errorf("%s: %d %s, want %d %s", c.name, code, body, c.status, c.code)
		}
	}
}

func TestA22_QueryToken_WhenConfiguredMustAgree(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.AllowQueryToken = true })
	path := "/_matrix/app/v1/transactions/1"
	for _, c := range []struct {
		path, auth string
		status     int
	}{
		{path + "?access_token=" + testHSToken, "", 200},
		{path + "?access_token=" + testHSToken, "Bearer " + testHSToken, 200},
		{path + "?access_token=nope", "Bearer " + testHSToken, 403},
		{path + "?access_token=" + testHSToken, "Bearer nope", 403},
		{path + "?access_token=nope", "", 403},
		{path, "", 401},
	} {
		if code, body := f.do(http.MethodPut, c.path, `{"events":[]}`, c.auth); code != c.status {
			t.Errorf("%s with %q: %d %s, want %d", c.path, c.auth, code, body, c.status)
		}
	}
}

func TestA25_UnknownPathIs404WrongMethodIs405(t *testing.T) {
	f := newFixture(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/", 404, "M_UNRECOGNIZED"},
		{"PUT", "/_matrix/app/v1/transactions/", 404, "M_UNRECOGNIZED"},
		{"PUT", "/_matrix/app/v1/transactions/1/2", 404, "M_UNRECOGNIZED"},
		{"PUT", "/_matrix/app/v1//transactions/1", 404, "M_UNRECOGNIZED"},
		{"PUT", "/transactions/1", 404, "M_UNRECOGNIZED"},
		{"GET", "/_matrix/app/v1/transactions/1", 405, "M_UNRECOGNIZED"},
		{"POST", "/_matrix/app/v1/transactions/1", 405, "M_UNRECOGNIZED"},
		{"GET", "/_matrix/app/v1/ping", 405, "M_UNRECOGNIZED"},
		{"PUT", "/_matrix/app/v1/transactions/a%2Fb", 200, "{}"},
		{"POST", "/_matrix/app/v1/ping", 200, "{}"},
		{"GET", "/_matrix/app/v1/users/%40irc_x%3Ahs.test", 404, "M_NOT_FOUND"},
		{"GET", "/_matrix/app/v1/rooms/%23irc_x%3Ahs.test", 404, "M_NOT_FOUND"},
		{"GET", "/_matrix/app/v1/thirdparty/protocol/irc", 404, "M_NOT_FOUND"},
		{"GET", "/_matrix/app/v1/thirdparty/user?userid=x", 404, "M_NOT_FOUND"},
	} {
		code, body := f.do(c.method, c.path, `{"events":[]}`, "Bearer "+testHSToken)
		if code != c.status || !strings.Contains(body, c.code) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, code, body, c.status, c.code)
		}
	}
	legacy := newFixture(t, nil, func(c *Config) { c.LegacyPaths = true })
	if code, body := legacy.do("PUT", "/transactions/1", `{"events":[]}`, "Bearer "+testHSToken); code != 200 {
		t.Errorf("the legacy path answered %d %s", code, body)
	}
}

func TestA23_SameIDSameBody_HandlesNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	body := events(message("$1"), message("$2"))
	f.mustPut("1", body)
	f.mustPut("1", body)
	f.mustPut("2", body)
	f.idle()
	if got := f.rec.ids(); got != "$1 $2" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_SameIDLargerBody_HandlesOnlyNewEvents(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("7", events(message("$1")))
	f.mustPut("7", events(message("$1"), message("$2"), message("$3")))
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_IDStartsOverWithOtherEvents_HandlesAllOfThem(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", events(message("$1")))
	f.mustPut("117", events(message("$2")))
	f.mustPut("1", events(message("$3")))
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_RepeatedWhileTheFirstIsHandled_HandlesNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	release := make(chan struct{})
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	body := events(message("$1"))
	var both sync.WaitGroup
	for range 8 {
		both.Go(func() {
			if code, answer := f.put("1", body); code != 200 {
				t.Errorf("%d %s", code, answer)
			}
		})
	}
	both.Wait()
	close(release)
	f.idle()
	if got := f.rec.ids(); got != "$1" {
		t.Errorf("handled %s", got)
	}
}

func TestA23_RepeatedAfterARestart_HandlesNothingTwice(t *testing.T) {
	f := newFixture(t, nil)
	f.mustPut("1", events(message("$1")))
	f.idle()
	f.crash()
	f.mustPut("1", events(message("$1"), message("$2")))
	f.idle()
	if got := f.rec.ids(); got != "$2" {
		t.Errorf("handled %s after the restart", got)
	}
}

func TestA23_ToDeviceMessage_IsOneByTransactionAndBody(t *testing.T) {
	f := newFixture(t, nil)
	msg := func(n int) string {
		return fmt.Sprintf(`{"type":"m.room.encrypted","sender":"@bob:hs.test","to_user_id":"@irc_a:hs.test","to_device_id":"D","content":{"n":%d}}`, n)
	}
	f.mustPut("1", `{"de.sorunome.msc2409.to_device":[`+msg(1)+`,`+msg(2)+`]}`)
	f.mustPut("1", `{"de.sorunome.msc2409.to_device":[`+msg(1)+`,`+msg(2)+`]}`)
	f.mustPut("2", `{"to_device":[`+msg(1)+`]}`)
	f.idle()
	if n := len(f.rec.events); n != 3 {
		t.Errorf("%d messages were handled, want 3", n)
	}
	ev := f.rec.events[0]
	if ev.Lane != "device:@irc_a:hs.test/D" || ev.ToDeviceID != "D" || ev.Kind != store.KindToDevice {
		t.Errorf("got %+v", ev)
	}
}

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
			f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
				_, err := ev.Decode()
				return nil, err
			}
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

func TestA26_EventsOfARoom_KeepTheirOrder(t *testing.T) {
	f := newFixture(t, nil)
	var want []string
	for txn := range 10 {
		var list []string
		for n := range 10 {
			for room := range 5 {
				list = append(list, messageIn(fmt.Sprintf("!r%d:hs.test", room), fmt.Sprintf("$%d-%d-%d", room, txn, n)))
			}
			want = append(want, fmt.Sprintf("%d-%d", txn, n))
		}
		f.mustPut(fmt.Sprint(txn), events(list...))
	}
	f.idle()
	got := map[string][]string{}
	for _, ev := range f.rec.events {
		room, rest, _ := strings.Cut(string(ev.ID[1:]), "-")
		got[room] = append(got[room], rest)
	}
	for room := range 5 {
		if fmt.Sprint(got[fmt.Sprint(room)]) != fmt.Sprint(want) {
			t.Errorf("room %d: %v", room, got[fmt.Sprint(room)])
		}
	}
}

func TestA27_CrashRightAfter200_EveryEventIsHandledOnce(t *testing.T) {
	f := newFixture(t, nil)
	stuck := make(chan struct{})
	f.rec.handle = func(ctx context.Context, ev *Event) ([]Effect, error) {
		if ev.ID == "$2" {
			close(stuck)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, nil
	}
	f.mustPut("1", events(message("$1"), message("$2"), message("$3")))
	<-stuck
	f.as.commitEnd() // from here on it writes nothing, as if it were dead
	f.rec.handle = nil
	f.crash()
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" && got != "$2 $3" {
		t.Errorf("handled %s after the crash", got)
	}
	f.crash()
	f.idle()
	if got := f.rec.ids(); got != "" {
		t.Errorf("handled %s again", got)
	}
}

func TestIntake_BodyOverTheLimit_Is413AndNotStored(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.MaxBody = 500 })
	big := events(message("$1"), message("$2"), message("$3"))
	if code, body := f.put("1", big); code != 413 || !strings.Contains(body, "M_TOO_LARGE") {
		t.Errorf("%d %s", code, body)
	}
	req := httptest.NewRequest(http.MethodPut, "/_matrix/app/v1/transactions/2", io.MultiReader(strings.NewReader(big)))
	req.ContentLength = -1
	req.Header.Set("Authorization", "Bearer "+testHSToken)
	w := httptest.NewRecorder()
	f.as.ServeHTTP(w, req)
	if w.Code != 413 {
		t.Errorf("without a length: %d", w.Code)
	}
	f.mustPut("3", events(message("$1")))
	f.idle()
	if len(f.deadLetters()) != 0 || f.rec.ids() != "$1" {
		t.Errorf("handled %s, dead letters %v", f.rec.ids(), f.deadLetters())
	}
}

func TestIntake_BodyThatBreaksOff_Is400AndNotStored(t *testing.T) {
	f := newFixture(t, nil)
	server := httptest.NewServer(f.as)
	defer server.Close()
	for _, head := range []string{"Content-Length: 5000", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body := events(message("$1"))
		if strings.HasPrefix(head, "Transfer") {
			body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
		}
		fmt.Fprintf(conn, "PUT /_matrix/app/v1/transactions/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n%s", testHSToken, head, body)
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ := io.ReadAll(conn)
		_ = conn.Close()
		if !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
			t.Errorf("%s: %q", head, answer)
		}
	}
	f.idle()
	if len(f.deadLetters()) != 0 || f.rec.ids() != "" {
		t.Errorf("handled %s, dead letters %v", f.rec.ids(), f.deadLetters())
	}
}

func TestIntake_BacklogAtItsLimit_IsHeldAndThenRefusedAndRecovers(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.BacklogLimit = 2; c.HoldFor = 3 * holdPause })
	release := make(chan struct{})
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	f.mustPut("1", events(message("$1"), message("$2")))
	if code, body := f.put("2", events(message("$3"))); code != 503 || !strings.Contains(body, "M_UNKNOWN") {
		t.Errorf("%d %s", code, body)
	}
	if err := f.as.Ready(); !errors.Is(err, errBacklog) {
		t.Errorf("ready: %v", err)
	}
	close(release)
	f.idle()
	if err := f.as.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	f.mustPut("2", events(message("$3")))
	f.idle()
	if got := f.rec.ids(); got != "$1 $2 $3" {
		t.Errorf("handled %s", got)
	}
}

func TestIntake_BacklogShrinksWhileHeld_IsTakenIn(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.BacklogLimit = 1 })
	release := make(chan struct{})
	f.rec.handle = func(_ context.Context, ev *Event) ([]Effect, error) {
		<-release
		return nil, nil
	}
	f.mustPut("1", events(message("$1")))
	answered := make(chan int)
	go func() {
		code, _ := f.put("2", events(message("$2")))
		answered <- code
	}()
	close(release)
	if code := <-answered; code != 200 {
		t.Errorf("%d", code)
	}
}

func TestIntake_ClientGone_StopsHolding(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.BacklogLimit = 1 })
	release := make(chan struct{})
	defer close(release)
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	f.mustPut("1", events(message("$1")))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	req := httptest.NewRequest(http.MethodPut, "/_matrix/app/v1/transactions/2", strings.NewReader(events(message("$2")))).WithContext(ctx)
	req.Header.Set("Authorization", "Bearer "+testHSToken)
	f.as.ServeHTTP(httptest.NewRecorder(), req) // would hold for 20 s
}

func TestIntake_StoreClosed_Is503(t *testing.T) {
	f := newFixture(t, nil)
	_ = f.store.Close()
	if code, body := f.put("1", events(message("$1"))); code != 503 || !strings.Contains(body, "M_UNKNOWN") {
		t.Errorf("%d %s", code, body)
	}
}

func TestIntake_AfterStop_Is503(t *testing.T) {
	f := newFixture(t, nil)
	f.stop()
	if code, _ := f.put("1", events(message("$1"))); code != 503 {
		t.Errorf("%d", code)
	}
	if err := f.as.Ready(); err == nil {
		t.Error("ready after Stop")
	}
}

func TestIntake_EncryptionEvent_MarksTheRoomInTheSameCommit(t *testing.T) {
	f := newFixture(t, nil)
	release := make(chan struct{})
	f.rec.handle = func(context.Context, *Event) ([]Effect, error) { <-release; return nil, nil }
	f.mustPut("1", events(message("$1"), `{"type":"m.room.encryption","state_key":"","content":{"algorithm":"m.megolm.v1.aes-sha2"},"event_id":"$e","room_id":"!secret:hs.test","sender":"@bob:hs.test"}`,
		`{"type":"m.room.encryption","content":{},"event_id":"$n","room_id":"!plain:hs.test","sender":"@bob:hs.test"}`))
	for room, want := range map[string]bool{"!secret:hs.test": true, "!plain:hs.test": false, testRoom: false} {
		if got, _, err := f.store.Encrypted(context.Background(), room); err != nil || got != want {
			t.Errorf("%s encrypted: %v %v", room, got, err)
		}
	}
	close(release)
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

func TestA22_Token_IsInNoAnswer(t *testing.T) {
	f := newFixture(t, nil)
	for _, auth := range []string{"", "Bearer wrong"} {
		if _, body := f.do("PUT", "/_matrix/app/v1/transactions/1", "", auth); strings.Contains(body, testHSToken) || strings.Contains(body, "Bearer wrong") {
			t.Errorf("the answer is %s", body)
		}
	}
}

func TestIntake_StoreBusy_AnswersOnlyAfterTheCommit(t *testing.T) {
	f := newFixture(t, nil)
	// A job that holds the one writer stands for a slow disk: nothing may be handed over or answered before the commit.
	gate, entered := make(chan struct{}), make(chan struct{})
	go func() {
		_ = f.store.Commit(context.Background(), f.as.epoch, func(*store.Tx) error { close(entered); <-gate; return nil })
	}()
	<-entered
	answered := make(chan int, 1)
	go func() {
		code, _ := f.put("1", events(message("$1")))
		answered <- code
	}()
	select {
	case code := <-answered:
		t.Errorf("answered %d before the commit", code)
	default:
	}
	if f.rec.ids() != "" {
		t.Error("handled before the commit")
	}
	close(gate)
	if code := <-answered; code != 200 {
		t.Errorf("answered %d", code)
	}
	f.idle()
}
