package appservice

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// MaxKeySyncs is how many calls of [Intent.SyncKeys] have a connection to the homeserver at once. They have connections of their own, so
// that those that wait for something new keep nobody else waiting.
const MaxKeySyncs = 32

// keySyncFilter leaves of /sync what is about devices and keys: no room, nobody's presence, no settings.
const keySyncFilter = `{"room":{"rooms":[]},"presence":{"types":[]},"account_data":{"types":[]}}`

// KeyProbe is the type of a to-device message that a device sends to itself, to find out whether transactions bring such. SyncKeys leaves
// them out.
const KeyProbe = "com.github.trestle-bridge.probe"

// ErrDeviceGone says that the homeserver has not got a device, or no longer.
var ErrDeviceGone = errors.New("the homeserver does not have the device")

// KeySync is what [Intent.SyncKeys] has taken in.
type KeySync struct {
	Next     string // from where to go on
	Messages int    // how many to-device messages there were
}

// carried counts what transactions brought.
type carried struct{ messages, counts atomic.Int64 }

func (c *carried) note(t *store.Transaction) {
	for i := range t.Elements {
		switch t.Elements[i].Kind {
		case store.KindToDevice:
			c.messages.Add(1)
		case store.KindKeyCounts:
			c.counts.Add(1)
		}
	}
}

// CarriedKeys tells how many to-device messages, and how many times key counts, transactions have brought since the start. A homeserver
// that brings neither may still have them for [Intent.SyncKeys].
func (as *AppService) CarriedKeys() (messages, counts int64) {
	return as.carried.messages.Load(), as.carried.counts.Load()
}

// BotSyncs says whether [Intent.SyncKeys] is of any use to the bot. Synapse answers /sync to no sender_localpart (500, whatever token it asks with). What the
// homeserver is, is known from the first device on.
func (as *AppService) BotSyncs() bool { return !as.gaps.ofSynapse() }

// SyncKeys asks the homeserver for what it holds for one of the user's devices: to-device messages, device lists and key counts. It is for
// homeservers whose transactions have nothing of these, as the specification allows: /sync in the name of a virtual user, without rooms.
// The answer waits until there is something, for at most the time that is given. What is in it is taken in as if a transaction had brought
// it: it is durable when SyncKeys returns, and comes to the handler as events of store.KindToDevice, store.KindDeviceLists and
// store.KindKeyCounts.
//
// since is the Next of the last call, or empty. The homeserver forgets messages when it is asked with the Next that came with them. So that is
// to be stored; a second call with the same since brings everything again, which is recognised.
func (i *Intent) SyncKeys(ctx context.Context, device id.DeviceID, since string, wait time.Duration) (got KeySync, err error) {
	what := fmt.Sprintf("ask for the keys of %s on %s", i.user, device)
	cli := i.Client(device)
	cli.Client = i.as.syncs
	query := map[string]string{
		"filter": keySyncFilter, "timeout": strconv.FormatInt(wait.Milliseconds(), 10),
		"set_presence": "offline", // nobody sits there
	}
	if since != "" {
		query["since"] = since
	}
	ctx, cancel := context.WithTimeout(ctx, wait+time.Minute)
	defer cancel()
	answer, err := cli.MakeFullRequest(ctx, mautrix.FullRequest{
		Method: http.MethodGet, URL: cli.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "sync"}, query), SensitiveContent: true,
	})
	if errorCode(err) == "M_UNKNOWN_TOKEN" && !cli.SetAppServiceUserID {
		if forgetErr := i.forgetOwn(ctx, device); forgetErr != nil {
			return got, forgetErr
		}
		return got, fmt.Errorf("%s: %w", what, ErrDeviceGone)
	}
	if err != nil && maybeUnknownDevice(err) && i.deviceGone(ctx, device) {
		return got, fmt.Errorf("%s: %w: %w", what, ErrDeviceGone, i.as.explain(err))
	}
	if err != nil {
		return got, fmt.Errorf("%s: %w", what, i.as.explain(err))
	}
	known := i.counted.Load()
	body, got, counted, err := asTransaction(i.user, device, answer, known)
	if err != nil {
		return got, fmt.Errorf("%s: %w", what, err)
	}
	if body != nil {
		name := sha256.Sum256([]byte(string(i.user) + "\x00" + string(device) + "\x00" + since))
		t, _ := i.as.takeApart("sync "+hex.EncodeToString(name[:16]), body)
		if err := i.as.takeIn(ctx, t); err != nil {
			return KeySync{}, fmt.Errorf("%s: %w", what, err)
		}
	}
	i.counted.Store(&counted)
	return got, nil
}

// asTransaction makes of an answer of /sync the transaction that would have brought the same; nil when there is nothing in it. Counts are in
// every answer: those that were known, as counted, are left out.
func asTransaction(user id.UserID, device id.DeviceID, answer []byte, known *string) (body []byte, got KeySync, counted string, err error) {
	var sync struct {
		Next     string `json:"next_batch"`
		ToDevice struct {
			Events []json.RawMessage `json:"events"`
		} `json:"to_device"`
		Lists    json.RawMessage `json:"device_lists"`
		Counts   json.RawMessage `json:"device_one_time_keys_count"`
		Fallback json.RawMessage `json:"device_unused_fallback_key_types"`
	}
	if err := json.Unmarshal(answer, &sync); err != nil {
		return nil, got, "", fmt.Errorf("read the answer of /sync: %w", err)
	}
	if sync.Next == "" {
		return nil, got, "", errors.New("the answer of /sync has no next_batch")
	}
	got = KeySync{Next: sync.Next, Messages: len(sync.ToDevice.Events)}
	out := make(map[string]any)
	var messages []json.RawMessage
	for _, ev := range sync.ToDevice.Events {
		var is struct{ Type string }
		if json.Unmarshal(ev, &is) != nil || is.Type != KeyProbe {
			messages = append(messages, addressed(ev, user, device))
		}
	}
	if len(messages) > 0 {
		out["to_device"] = messages
	}
	if len(sync.Lists) > 0 {
		out["device_lists"] = sync.Lists
	}
	of := func(value json.RawMessage) any {
		return map[id.UserID]any{user: map[id.DeviceID]json.RawMessage{device: value}}
	}
	counted = string(device) + string(sync.Counts) + string(sync.Fallback)
	if known != nil && *known == counted {
		sync.Counts, sync.Fallback = nil, nil
	}
	if len(sync.Counts) > 0 {
		out["device_one_time_keys_count"] = of(sync.Counts)
	}
	if len(sync.Fallback) > 0 {
		out["device_unused_fallback_key_types"] = of(sync.Fallback)
	}
	if len(out) == 0 {
		return nil, got, counted, nil
	}
	body, err = json.Marshal(out)
	return body, got, counted, err
}

// addressed writes into a message whom it is for, as transactions do. What is no object stays as it is, and becomes a dead letter.
func addressed(ev json.RawMessage, user id.UserID, device id.DeviceID) json.RawMessage {
	trimmed := bytes.TrimSpace(ev)
	if len(trimmed) < 2 || trimmed[0] != '{' {
		return ev
	}
	out := append([]byte(nil), trimmed[:len(trimmed)-1]...)
	if len(bytes.TrimSpace(trimmed[1:len(trimmed)-1])) > 0 {
		out = append(out, ',')
	}
	for n, field := range [...][2]string{{"to_user_id", string(user)}, {"to_device_id", string(device)}} {
		if n > 0 {
			out = append(out, ',')
		}
		quoted, err := jsontext.AppendQuote(nil, field[1])
		if err != nil {
			return ev
		}
		out = append(append(append(out, '"'), field[0]...), '"', ':')
		out = append(out, quoted...)
	}
	return append(out, '}')
}
