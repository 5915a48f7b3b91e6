//go:build goolm

package crypto_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

// The messages are as large as those with sender_device_keys are at most, and the limit is that of a common proxy.
func TestI5_RoomKeyForManyDevices_GoesInSeveralRequestsToEachOnce(t *testing.T) {
	type messages map[id.UserID]map[id.DeviceID]json.RawMessage
	sent, paths := map[string]int{}, map[string]int{}
	refuseAt := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got struct{ Messages messages }
		if err != nil || json.Unmarshal(body, &got) != nil || len(body) > 1<<20 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		if paths[r.URL.Path]++; len(paths) == refuseAt {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		for user, devices := range got.Messages {
			for device := range devices {
				sent[fmt.Sprint(user, device)]++
			}
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	all := messages{}
	for user := range 30 {
		name := id.UserID(fmt.Sprintf("@user%d:hs.test", user))
		all[name] = map[id.DeviceID]json.RawMessage{}
		for device := range 30 {
			all[name][id.DeviceID(fmt.Sprint("DEVICE", device))] = json.RawMessage(fmt.Sprintf("{%q:%q}", "body", strings.Repeat("x", 3500)))
		}
	}
	put := func(path string, of messages) *http.Response {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"messages": of})
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+path, strings.NewReader(string(body)))
		resp, err := crypto.SendInBatches(http.DefaultTransport, req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	const path = "/_matrix/client/v3/sendToDevice/m.room.encrypted/txn"
	if resp := put(path, all); resp.StatusCode != http.StatusOK || len(sent) != 900 || len(paths) != 4 {
		t.Errorf("%s; %d devices got a message, in %d requests", resp.Status, len(sent), len(paths))
	}
	for to, n := range sent {
		if n != 1 {
			t.Errorf("%s got %d messages", to, n)
		}
	}
	for path, n := range paths {
		if n != 1 {
			t.Errorf("%s was used %d times", path, n)
		}
	}
	clear(paths)
	refuseAt = 2
	if resp := put(path, all); resp.StatusCode != http.StatusBadGateway || len(paths) != 2 {
		t.Errorf("%s after %d requests, of which the second failed", resp.Status, len(paths))
	}
	clear(paths)
	refuseAt = 0
	if put(path, messages{"@a:hs.test": all["@user1:hs.test"]}); paths[path] != 1 || len(paths) != 1 {
		t.Errorf("what is small was sent to %v", paths)
	}
}

func TestI5_ManyLargeMessagesForADevice_AreTakenIn(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	bot := w.as.Bot().UserID()
	w.no(w.crypto.Prepare(t.Context(), bot))
	const many = 120 // more than Synapse puts into one transaction
	for n := range many {
		_, err := w.alice.client.SendToDevice(t.Context(), event.Type{Type: "org.example.large", Class: event.ToDeviceEventType}, &mautrix.ReqSendToDevice{
			Messages: map[id.UserID]map[id.DeviceID]*event.Content{bot: {w.device(bot): {Raw: map[string]any{"n": n, "body": strings.Repeat("x", 5000)}}}},
		})
		w.no(err)
	}
	w.settle()
	if got := len(w.keys); got < many {
		t.Errorf("%d of %d came", got, many)
	}
}
