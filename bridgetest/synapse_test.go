package bridgetest_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// The tables below repeat requests that were made to Synapse 1.160, with its answers.

func TestDevices_OfAGhost_AnswerAsSynapse(t *testing.T) {
	w := start(t)
	w.ghost("demo_g1")
	const as = "?user_id=@demo_g1:hs.test"
	w.expect("PUT", "devices/DEV1"+as, `{"display_name":"bridge"}`, 201, "")
	w.expect("PUT", "devices/DEV1"+as, `{"display_name":"bridge2"}`, 200, "")
	w.expect("PUT", "devices/DEV2"+as, `{}`, 201, "")
	w.expect("PUT", "devices/DEV2"+as, ``, 400, "M_NOT_JSON")
	w.expect("PUT", "/_matrix/client/v1/devices/DEV1"+as, `{}`, 404, "M_UNRECOGNIZED")
	w.expect("PUT", "devices/DEV1?user_id=@demo_unregistered:hs.test", `{}`, 403, "M_FORBIDDEN")
	w.expect("PUT", "devices/DEV1?user_id=@bob:hs.test", `{}`, 403, "M_FORBIDDEN")
	w.expect("PUT", "devices/BOTDEV", `{"display_name":"bot"}`, 201, "") // the bot is not registered
	w.is(w.expect("GET", "devices/DEV1"+as, "", 200, ""), map[string]any{
		"user_id": "@demo_g1:hs.test", "device_id": "DEV1", "display_name": "bridge2", "last_seen_ts": nil, "last_seen_ip": nil,
	})
	w.is(w.hs.Devices("@demo_g1:hs.test"), []string{"DEV1", "DEV2"})
	w.expect("DELETE", "devices/DEV2"+as, "", 200, "")
	w.expect("DELETE", "devices/DEV2"+as, "{}", 200, "")
	w.expect("POST", "delete_devices"+as, `{"devices":["DEV1","NOSUCH"]}`, 200, "")
	w.is(w.hs.Devices("@demo_g1:hs.test"), nil)

	bob := w.hs.User("bob")
	status, answer := w.request(bob.Token(), "DELETE", "devices/"+string(bob.DeviceID()), "{}")
	if status != 401 || answer["flows"] == nil {
		t.Fatalf("a user deletes a device: %d %v, want a request for the password", status, answer)
	}
}

func TestWhoami_Masquerading_AnswersAsSynapse(t *testing.T) {
	w := start(t)
	w.expect("GET", "account/whoami", "", 200, "")
	w.expect("GET", "profile/@demobot:hs.test", "", 404, "M_UNKNOWN")
	w.ghost("demo_g1")
	const whoami = "account/whoami?user_id=@demo_g1:hs.test"
	w.expect("PUT", "devices/DEV1?user_id=@demo_g1:hs.test", `{}`, 201, "")
	want := map[string]any{"user_id": "@demo_g1:hs.test", "is_guest": false, "device_id": "DEV1"}
	w.is(w.expect("GET", whoami+"&device_id=DEV1", "", 200, ""), want)
	w.is(w.expect("GET", whoami+"&org.matrix.msc3202.device_id=DEV1", "", 200, ""), want)
	w.expect("GET", whoami+"&device_id=NOPE", "", 400, "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE")
	w.expect("GET", whoami+"&device_id=", "", 400, "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE")
	w.expect("GET", "account/whoami?device_id=DEV1", "", 500, "M_UNKNOWN")
	w.expect("GET", "account/whoami?user_id=@bob:hs.test", "", 403, "M_FORBIDDEN")
	w.expect("GET", "account/whoami?user_id=@demo_x:hs.test", "", 403, "M_FORBIDDEN")
	w.expect("GET", "account/whoami?user_id=@demo_x:other.server", "", 403, "M_FORBIDDEN")
	w.expect("GET", "account/whoami?user_id=garbage", "", 403, "M_FORBIDDEN")
	status, answer := w.request("wrong", "GET", "account/whoami", "")
	w.is([]any{status, answer["errcode"]}, []any{401, "M_UNKNOWN_TOKEN"})
	status, answer = w.request("", "GET", "account/whoami", "")
	w.is([]any{status, answer["errcode"]}, []any{401, "M_MISSING_TOKEN"})
	_, answer = w.request(w.hs.User("bob").Token(), "GET", whoami, "")
	w.is(answer["user_id"], "@bob:hs.test")
	w.expect("DELETE", "account/whoami", "", 405, "M_UNRECOGNIZED")
	w.expect("GET", "no/such/thing", "", 404, "M_UNRECOGNIZED")
}

func TestRegisterAndLogin_OfAnAppservice_AnswerAsSynapse(t *testing.T) {
	w := start(t)
	register := func(rest string) string { return `{"type":"m.login.application_service",` + rest + `}` }
	w.is(w.expect("POST", "register", register(`"username":"demo_g1","inhibit_login":true`), 200, ""),
		map[string]any{"user_id": "@demo_g1:hs.test", "home_server": "hs.test"})
	w.expect("POST", "register", register(`"username":"demo_g1","inhibit_login":true`), 400, "M_USER_IN_USE")
	if w.expect("POST", "register", register(`"username":"demo_g2"`), 200, "")["access_token"] == "" {
		t.Fatal("no token without inhibit_login")
	}
	w.expect("POST", "register", register(`"username":"outofns","inhibit_login":true`), 400, "M_EXCLUSIVE")
	w.expect("POST", "register", register(`"username":"@demo_g7:hs.test","inhibit_login":true`), 400, "M_EXCLUSIVE")
	w.expect("POST", "register", register(`"inhibit_login":true`), 400, "M_UNKNOWN")
	w.expect("POST", "register", `{"username":"demo_g4"}`, 400, "M_UNKNOWN")
	w.expect("POST", "register", register(`"username":"demobot","inhibit_login":true`), 200, "")
	status, answer := w.request("wrong", "POST", "register", register(`"username":"demo_g7"`))
	w.is([]any{status, answer["errcode"]}, []any{401, "M_UNKNOWN_TOKEN"})

	login := func(user string) string { return register(`"identifier":{"type":"m.id.user","user":"` + user + `"}`) }
	answer = w.expect("POST", "login", login("demo_g1"), 200, "")
	token, _ := answer["access_token"].(string)
	_, who := w.request(token, "GET", "account/whoami", "")
	w.is(who["user_id"], "@demo_g1:hs.test")
	w.expect("POST", "login", login("@demo_g1:hs.test"), 200, "")
	w.expect("POST", "login", login("demo_unreg"), 404, "M_UNKNOWN")
	w.expect("POST", "login", login("bob"), 403, "M_FORBIDDEN")
	w.expect("POST", "login", register(`"user":"demo_g1"`), 400, "M_INVALID_PARAM")
	status, answer = w.request("", "POST", "login", login("demo_g1"))
	w.is([]any{status, answer["errcode"]}, []any{401, "M_MISSING_TOKEN"})
	status, answer = w.request(token, "POST", "login", login("demo_g1"))
	w.is([]any{status, answer["errcode"]}, []any{401, "M_UNKNOWN_TOKEN"})
	w.hs.User("alice")
	status, _ = w.request("", "POST", "login", `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"alice"}`)
	w.is(status, 200)
}

func TestRegister_WithoutLogins_RefusesAndCreatesTheUserAllTheSame(t *testing.T) {
	w := start(t, func(r *bridgetest.Registration) { r.NoLogin = true })
	const unsupported = "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED"
	w.expect("POST", "register", `{"type":"m.login.application_service","username":"demo_g1"}`, 400, unsupported)
	w.expect("POST", "register", `{"type":"m.login.application_service","username":"demo_g1","inhibit_login":true}`, 400, "M_USER_IN_USE")
	w.expect("POST", "login", `{"type":"m.login.application_service","identifier":{"type":"m.id.user","user":"demo_g1"}}`, 400, unsupported)
}

func TestTransactionIDs_AreScopedAsSynapse(t *testing.T) {
	w := start(t)
	g1, g2 := w.ghost("demo_g1"), w.ghost("demo_g2")
	room := must(g1.CreateRoom(w.ctx, &mautrix.ReqCreateRoom{Preset: "public_chat"}))(w).RoomID
	must(g2.JoinRoomByID(w.ctx, room))(w)
	w.expect("PUT", "devices/DEV1?user_id=@demo_g1:hs.test", `{}`, 201, "")
	send := func(txn, who, text string) id.EventID {
		t.Helper()
		answer := w.expect("PUT", "rooms/"+string(room)+"/send/m.room.message/"+txn+"?user_id="+who, `{"msgtype":"m.text","body":"`+text+`"}`, 200, "")
		s, _ := answer["event_id"].(string)
		return id.EventID(s)
	}
	const ghost1, ghost2 = "@demo_g1:hs.test", "@demo_g2:hs.test"
	plain := send("sc1", ghost1, "g1")
	w.is(send("sc1", ghost2, "lost"), plain) // another ghost's message
	device := send("sc2", ghost1+"&device_id=DEV1", "g1")
	w.is(send("sc2", ghost1+"&device_id=DEV1", "g1"), device)
	w.is(send("sc2", ghost2, "lost"), device)
	w.hs.Restart()
	w.is(send("sc2", ghost1+"&device_id=DEV1", "g1"), device)
	if send("sc1", ghost1, "doubled") == plain {
		t.Fatal("without a device the transaction ID outlived the restart")
	}
}

func TestSend_AfterARefusal_TransactionIDIsNotUsedUp(t *testing.T) {
	w := start(t)
	g1, g2 := w.ghost("demo_g1"), w.ghost("demo_g2")
	room := must(g1.CreateRoom(w.ctx, &mautrix.ReqCreateRoom{Preset: "public_chat"}))(w).RoomID
	path := "rooms/" + string(room) + "/send/m.room.message/t1?user_id=@demo_g2:hs.test"
	w.expect("PUT", path, `{"body":"x"}`, 403, "M_FORBIDDEN")
	must(g2.JoinRoomByID(w.ctx, room))(w)
	w.expect("PUT", path, `{"body":"x"}`, 200, "")
}

func TestAliases_OfAnAppservice_AreMadeWhenAskedFor(t *testing.T) {
	w := start(t)
	bob := w.hs.User("bob")
	_, err := bob.Join(w.ctx, "#demo_x:hs.test")
	if !bridgetest.IsErrCode(err, "M_UNKNOWN") && !bridgetest.IsErrCode(err, "M_NOT_FOUND") {
		t.Fatalf("joining an alias that nobody knows: %v", err)
	}
	w.as.answers(func(a asked) (int, string) {
		if a.Path == "/_matrix/app/v1/rooms/%23demo_x%3Ahs.test" {
			w.expect("POST", "createRoom", `{"preset":"public_chat","room_alias_name":"demo_x"}`, 200, "")
		}
		return 200, "{}"
	})
	room := must(bob.Join(w.ctx, "#demo_x:hs.test"))(w)
	answer := w.expect("GET", "directory/room/%23demo_x%3Ahs.test", "", 200, "")
	w.is(answer["room_id"], room)
	status, answer := w.request(bob.Token(), "PUT", "directory/room/%23demo_y:hs.test", `{"room_id":"`+string(room)+`"}`)
	w.is([]any{status, answer["errcode"]}, []any{400, "M_EXCLUSIVE"})
	w.expect("DELETE", "directory/room/%23demo_x:hs.test", "", 200, "")
	w.expect("GET", "directory/room/%23other:hs.test", "", 404, "M_NOT_FOUND")
}

func TestProfile_AnswersAsSynapse(t *testing.T) {
	w := start(t)
	w.ghost("demo_g1")
	const as = "?user_id=@demo_g1:hs.test"
	w.is(w.expect("GET", "profile/@demo_g1:hs.test", "", 200, ""), map[string]any{"displayname": "demo_g1"})
	w.expect("PUT", "profile/@demo_g1:hs.test/displayname"+as, `{"displayname":"Ghost"}`, 200, "")
	w.expect("PUT", "profile/@demo_g1:hs.test/com.ex.obj"+as, `{"com.ex.obj":{"a":[1,2]}}`, 200, "")
	w.expect("PUT", "profile/@demo_g1:hs.test/com.ex.obj"+as, `{"wrong":1}`, 400, "M_MISSING_PARAM")
	w.is(w.expect("GET", "profile/@demo_g1:hs.test", "", 200, ""), map[string]any{"displayname": "Ghost", "com.ex.obj": map[string]any{"a": []int{1, 2}}})
	w.expect("GET", "profile/@demo_g1:hs.test/no.such", "", 404, "M_NOT_FOUND")
	w.expect("PUT", "profile/@demo_g2:hs.test/displayname"+as, `{"displayname":"x"}`, 400, "M_FORBIDDEN")
}

func TestKeys_UploadedQueriedAndClaimed_FallbackLast(t *testing.T) {
	w := start(t)
	w.ghost("demo_g1")
	const as, dev = "?user_id=@demo_g1:hs.test", "&device_id=DEV1"
	w.expect("PUT", "devices/DEV1"+as, `{}`, 201, "")
	keys := `{"device_keys":{"user_id":"@demo_g1:hs.test","device_id":"DEV1","keys":{"ed25519:DEV1":"k"}},
		"one_time_keys":{"signed_curve25519:A":{"key":"a"}},"fallback_keys":{"signed_curve25519:F":{"key":"f","fallback":true}}}`
	w.expect("POST", "keys/upload"+as, keys, 400, "M_UNKNOWN")
	w.is(w.expect("POST", "keys/upload"+as+dev, keys, 200, ""), map[string]any{"one_time_key_counts": map[string]int{"signed_curve25519": 1}})
	w.expect("POST", "keys/upload"+as+dev, `{"device_keys":{"user_id":"@demo_g1:hs.test","device_id":"OTHER"}}`, 400, "M_BAD_JSON")
	answer := w.expect("POST", "keys/query", `{"device_keys":{"@demo_g1:hs.test":[]}}`, 200, "")
	devices, _ := answer["device_keys"].(map[string]any)
	if of, _ := devices["@demo_g1:hs.test"].(map[string]any); of["DEV1"] == nil {
		t.Fatalf("the device's keys are not in %v", answer)
	}
	const claim = `{"one_time_keys":{"@demo_g1:hs.test":{"DEV1":"signed_curve25519"}}}`
	claimed := func(name string, key any) map[string]any {
		return map[string]any{"failures": map[string]any{}, "one_time_keys": map[string]any{
			"@demo_g1:hs.test": map[string]any{"DEV1": map[string]any{"signed_curve25519:" + name: key}},
		}}
	}
	w.is(w.expect("POST", "keys/claim", claim, 200, ""), claimed("A", map[string]any{"key": "a"}))
	w.is(w.expect("POST", "keys/claim", claim, 200, ""), claimed("F", map[string]any{"key": "f", "fallback": true}))
	w.expect("POST", "keys/device_signing/upload"+as, `{"master_key":{"user_id":"@demo_g1:hs.test","usage":["master"],"keys":{"ed25519:M":"M"}}}`, 200, "")
	w.expect("POST", "keys/device_signing/upload"+as, `{"self_signing_key":{"user_id":"@demo_g1:hs.test","usage":["self_signing"],"keys":{"ed25519:S":"S"}}}`, 400, "M_INVALID_SIGNATURE")
}

func TestJ1_OneTimeKeys_AreHandedOutInTheOrderOfTheirUploads(t *testing.T) {
	w := start(t)
	w.ghost("demo_g1")
	const as = "?user_id=@demo_g1:hs.test&device_id=DEV1"
	w.expect("PUT", "devices/DEV1?user_id=@demo_g1:hs.test", `{}`, 201, "")
	for _, name := range []string{"C", "A", "B"} { // neither the order of the names
		w.expect("POST", "keys/upload"+as, `{"one_time_keys":{"signed_curve25519:`+name+`":{"key":"k"}}}`, 200, "")
	}
	for _, name := range []string{"C", "A", "B"} {
		answer := w.expect("POST", "keys/claim", `{"one_time_keys":{"@demo_g1:hs.test":{"DEV1":"signed_curve25519"}}}`, 200, "")
		if got := fmt.Sprint(answer["one_time_keys"]); !strings.Contains(got, "signed_curve25519:"+name+":") {
			t.Errorf("want %s, got %s", name, got)
		}
	}
}

func TestFaults_HitTheNextRequestsThatMatch(t *testing.T) {
	w := start(t)
	alice := w.hs.User("alice")
	room := must(alice.CreateRoom(w.ctx, bridgetest.RoomOptions{}))(w)
	sends := regexp.MustCompile(`/send/`)
	w.hs.Fault(bridgetest.Fault{Path: sends, Status: 429, RetryAfter: 1437 * time.Millisecond})
	w.hs.Fault(bridgetest.Fault{Path: sends, Method: "PUT", DropAfter: true})
	if _, err := alice.SendText(w.ctx, room, "limited"); !bridgetest.IsErrCode(err, "M_LIMIT_EXCEEDED") {
		t.Fatalf("got %v", err)
	}
	if _, err := alice.SendText(w.ctx, room, "answer lost"); err == nil {
		t.Fatal("the answer came")
	}
	must(alice.SendText(w.ctx, room, "well"))(w)
	var bodies []string
	for _, ev := range must(alice.Timeline(w.ctx, room))(w) {
		if ev.Body() != "" {
			bodies = append(bodies, ev.Body())
		}
	}
	w.is(bodies, []string{"answer lost", "well"})
	w.is(len(w.hs.Requests(func(r bridgetest.Request) bool { return r.User == alice.ID() && sends.MatchString(r.Path) })), 2)
}
