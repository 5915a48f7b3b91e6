package bridgetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What fits into a transaction, each: events, ephemeral events, to-device messages.
const perTransaction = 100

// maxBackoff is the exponent of the longest pause: 512 units.
const maxBackoff = 9

// transaction is what an appservice is to acknowledge. Once it has failed, or is made while the appservice is down,
// only the events are left of it: Synapse stores nothing else.
type transaction struct {
	id     int
	events []*pdu
	more   map[string]any // everything but the events
}

func newPushClient(headerTimeout time.Duration) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{ResponseHeaderTimeout: headerTimeout, MaxIdleConnsPerHost: 5},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// push sends an appservice its transactions, one at a time, until ctx ends.
func (hs *Homeserver) push(ctx context.Context, as *appService) {
	for ctx.Err() == nil {
		hs.mu.Lock()
		step, pause := hs.nextStep(as)
		hs.mu.Unlock()
		if step != nil {
			step(ctx)
			continue
		}
		if pause == 0 {
			select {
			case <-as.wake:
			case <-ctx.Done():
			}
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-as.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// nextStep decides what the pusher does: a step, a pause, or (neither) waiting for something new.
func (hs *Homeserver) nextStep(as *appService) (step func(context.Context), pause time.Duration) {
	if as.url == "" {
		if as.waiting() > 0 {
			as.events, as.ephemeral, as.toDevice, as.lists = nil, nil, nil, nil
			hs.notify()
		}
		return nil, 0
	}
	if user := hs.strangerToAsk(as); user != "" {
		return func(ctx context.Context) { hs.query(ctx, as, "users/"+quote(user)) }, 0
	}
	for as.waiting() > 0 {
		t := hs.takeTransaction(as)
		as.pending = append(as.pending, t)
		if as.up {
			return hs.sendStep(as, t), 0
		}
		t.more = nil
	}
	if as.up || !hs.started {
		return nil, 0
	}
	if len(as.pending) == 0 {
		as.up = true
		hs.notify()
		return nil, 0
	}
	if wait := time.Until(as.nextTry); wait > 0 {
		return nil, wait
	}
	return hs.sendStep(as, as.pending[0]), 0
}

// strangerToAsk returns a user of the appservice who is in an event that waits and is not registered: the appservice
// is asked about the user, and may register it, before it gets the event.
func (hs *Homeserver) strangerToAsk(as *appService) string {
	for _, p := range as.events {
		if p.at <= as.askedTo {
			continue
		}
		as.askedTo = p.at
		user := p.sender
		if p.typ == "m.room.member" && p.stateKey != nil {
			user = *p.stateKey
		}
		acc := hs.accounts[user]
		if user != as.sender.id && as.mine(user) && (acc == nil || !acc.registered) && strings.HasSuffix(user, ":"+hs.opts.ServerName) {
			return user
		}
	}
	return ""
}

// takeTransaction makes a transaction of the oldest of what waits.
func (hs *Homeserver) takeTransaction(as *appService) *transaction {
	hs.sequence++
	t := &transaction{id: hs.sequence, more: make(map[string]any)}
	t.events = cut(&as.events)
	ephemeral, toDevice := cut(&as.ephemeral), cut(&as.toDevice)
	switch {
	case as.reg.ReceiveEphemeral:
		t.more["ephemeral"] = ephemeral
	case as.reg.PushEphemeral:
		t.more["de.sorunome.msc2409.ephemeral"] = ephemeral
	}
	if as.wantsEphemeral() {
		t.more["de.sorunome.msc2409.to_device"] = toDevice
	}
	if as.wantsDevices(hs) {
		if len(as.lists) > 0 {
			t.more["org.matrix.msc3202.device_lists"] = map[string]any{"changed": as.lists, "left": []string{}}
		}
		counts, fallback := hs.keyCounts(as, t.events, toDevice)
		t.more["org.matrix.msc3202.device_one_time_key_counts"] = counts
		t.more["org.matrix.msc3202.device_one_time_keys_count"] = counts
		t.more["org.matrix.msc3202.device_unused_fallback_key_types"] = fallback
	}
	as.lists = nil
	return t
}

// cut takes as many elements as fit into a transaction.
func cut[T any](queue *[]T) []T {
	n := min(len(*queue), perTransaction)
	out := append([]T{}, (*queue)[:n]...)
	*queue = slices.Delete(*queue, 0, n)
	return out
}

func (as *appService) wantsDevices(hs *Homeserver) bool {
	return as.reg.DeviceExtensions && !hs.opts.NoDeviceExtensions
}

// offerDeviceList notes that a user's devices changed, when the user is the appservice's or shares a room with it.
func (as *appService) offerDeviceList(hs *Homeserver, user string) {
	if !as.wantsDevices(hs) || slices.Contains(as.lists, user) {
		return
	}
	concerned := as.mine(user)
	for _, r := range hs.rooms {
		concerned = concerned || r.joined(user) && as.hasMember(r)
	}
	if concerned {
		as.lists = append(as.lists, user)
		as.nudge()
	}
}

// keyCounts counts the keys of the sender, of the appservice's users in the rooms of events, and of those whom to-device
// messages are for.
func (hs *Homeserver) keyCounts(as *appService, events []*pdu, toDevice []map[string]any) (counts map[string]map[string]map[string]int, fallback map[string]map[string][]string) {
	users := map[string]bool{as.sender.id: true}
	for _, p := range events {
		for _, user := range p.room.members("join") {
			users[user] = users[user] || as.mine(user)
		}
	}
	for _, m := range toDevice {
		user, _ := m["to_user_id"].(string)
		users[user] = true
	}
	counts, fallback = make(map[string]map[string]map[string]int), make(map[string]map[string][]string)
	for user, wanted := range users {
		acc := hs.accounts[user]
		if !wanted || acc == nil || len(acc.devices) == 0 {
			continue
		}
		counts[user], fallback[user] = make(map[string]map[string]int), make(map[string][]string)
		for id, d := range acc.devices {
			counts[user][id], fallback[user][id] = d.counts(false), d.unusedFallback()
		}
		for _, id := range acc.crossKeyIDs() {
			counts[user][id], fallback[user][id] = map[string]int{}, []string{}
		}
	}
	return counts, fallback
}

// sendStep makes the attempt at a transaction; its body is made now, with the data locked.
func (hs *Homeserver) sendStep(as *appService, t *transaction) func(context.Context) {
	body := map[string]any{}
	switch {
	case t.more != nil:
		for k, v := range t.more {
			body[k] = v
		}
	case as.reg.ReceiveEphemeral:
		body["ephemeral"], body["de.sorunome.msc2409.to_device"] = []any{}, []any{}
	case as.reg.PushEphemeral:
		body["de.sorunome.msc2409.ephemeral"], body["de.sorunome.msc2409.to_device"] = []any{}, []any{}
	}
	events := make([]map[string]any, 0, len(t.events))
	for _, p := range t.events {
		events = append(events, p.legacy())
	}
	body["events"] = events
	data, generation := mustJSON(body), as.generation
	return func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		hs.mu.Lock()
		as.abortSend = cancel
		hs.mu.Unlock()
		_, _, err := hs.ask(ctx, as, http.MethodPut, "transactions/"+strconv.Itoa(t.id), data)
		hs.mu.Lock()
		defer hs.mu.Unlock()
		as.abortSend = nil
		if as.generation == generation { // otherwise the answer came after a restart, to nobody
			hs.attempted(as, t, err)
		}
	}
}

// attempted notes how an attempt went.
func (hs *Homeserver) attempted(as *appService, t *transaction, err error) {
	defer hs.notify()
	if err == nil {
		as.pending = slices.DeleteFunc(as.pending, func(p *transaction) bool { return p == t })
		as.sent++
		as.lastID = strconv.Itoa(t.id)
		as.backoff, as.nextTry = 1, time.Time{}
		return
	}
	as.failed++
	for _, p := range as.pending {
		p.more = nil
	}
	if as.up {
		as.up, as.backoff = false, 1
	} else {
		as.backoff = min(as.backoff+1, maxBackoff)
	}
	as.nextTry = time.Now().Add(hs.opts.RetryUnit << as.backoff)
}

// wakeRecoverers lets the retries begin that a restart ended.
func (hs *Homeserver) wakeRecoverers() {
	if hs.started {
		return
	}
	hs.started = true
	for _, as := range hs.services {
		if !as.up {
			as.backoff = 1
			as.nextTry = time.Now().Add(hs.opts.RetryUnit << as.backoff)
			as.nudge()
		}
	}
}

// Restart does to the homeserver's memory what a restart of Synapse does. A transaction under way is cut off; it stays
// unacknowledged, and goes again only when a later one fails. An appservice that is down is not retried, whatever it
// pings, until the next event that interests any appservice. Remembered transaction IDs of clients go, except of
// those that sent with a device. Typing ends. Users, rooms, media and logins stay.
func (hs *Homeserver) Restart() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.started = false
	hs.txnCache = make(map[string]cached)
	highest := 0
	for _, as := range hs.services {
		as.generation++
		if as.abortSend != nil {
			as.abortSend()
		}
		as.ephemeral = nil
		for _, t := range as.pending {
			highest = max(highest, t.id)
			t.more = nil
		}
	}
	if hs.opts.RestartSequence {
		hs.sequence = highest
	}
	for _, r := range hs.rooms {
		r.stopTimers()
		clear(r.typing)
		r.typingAt = hs.advance()
	}
	hs.notify()
}

// answerError is an appservice's answer that is no success.
type answerError struct {
	status int
	body   string
}

func (e *answerError) Error() string {
	return fmt.Sprintf("HTTP %d %s", e.status, http.StatusText(e.status))
}

// ask makes a request to an appservice. Success is any 2xx with JSON in it. The data must not be locked.
func (hs *Homeserver) ask(ctx context.Context, as *appService, method, path string, body []byte) (status int, answer []byte, err error) {
	hs.mu.Lock()
	address := strings.TrimSuffix(as.url, "/") + "/_matrix/app/v1/" + path
	hs.mu.Unlock()
	if hs.opts.LegacyQueryToken {
		address += "?access_token=" + url.QueryEscape(as.reg.HSToken)
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, reader)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("User-Agent", serverName)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+as.reg.HSToken)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := hs.pusher.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxJSON))
	if err != nil {
		return resp.StatusCode, nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return resp.StatusCode, answer, &answerError{resp.StatusCode, string(answer)}
	}
	if !json.Valid(answer) {
		return resp.StatusCode, answer, errors.New("JSONDecodeError: Expecting value: line 1 column 1 (char 0)")
	}
	return resp.StatusCode, answer, nil
}

// quote escapes a part of a path as Synapse does: everything but letters, digits and "_.-~".
func quote(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// query asks whether a user or alias exists.
func (hs *Homeserver) query(ctx context.Context, as *appService, path string) bool {
	_, _, err := hs.ask(ctx, as, http.MethodGet, path, nil)
	return err == nil
}
