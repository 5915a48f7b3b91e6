package bridge

import (
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// heard is what of the homeserver has come to a [checkListener].
type heard struct {
	ping       bool
	alias      bool // it has asked for the alias that it was made to look for
	wrongToken bool // it has called with another hs_token
	toDevice   bool // the message between devices that it was given
	extensions bool // device lists or key counts
	foreign    bool // a transaction that is not for check
	lists      int  // how often the bot's devices have changed
}

// checkListener takes the place of the bridge while that is being checked. It answers what check has caused, and refuses
// everything else, which then stays with the homeserver until the bridge runs: a transaction is taken only when there is
// nothing in it that a bridge would miss.
type checkListener struct {
	token string // the hs_token
	bot   string // user ID
	probe string // type of the message between devices, and localpart of the alias: nobody else has it

	mu      sync.Mutex
	heard   heard
	changed chan struct{} // closed and replaced when something was heard
}

func newCheckListener(token, bot, probe string) *checkListener {
	return &checkListener{token: token, bot: bot, probe: probe, changed: make(chan struct{})}
}

// state is what was heard, and a channel that is closed when there is more.
func (l *checkListener) state() (heard, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard, l.changed
}

func (l *checkListener) hear(change func(h *heard)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.heard)
	close(l.changed)
	l.changed = make(chan struct{})
}

// ServeHTTP implements http.Handler.
func (l *checkListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(status int, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
	const base = "/_matrix/app/v1/"
	path, _ := strings.CutPrefix(r.URL.Path, base)
	what, _, _ := strings.Cut(path, "/")
	switch {
	case subtle.ConstantTimeCompare([]byte(shownToken(r)), []byte(l.token)) != 1:
		if strings.HasPrefix(r.URL.Path, base) { // else it is anybody
			l.hear(func(h *heard) { h.wrongToken = true })
		}
		answer(http.StatusForbidden, `{"errcode":"M_FORBIDDEN","error":"wrong token"}`)
		return
	case r.Method == http.MethodPost && path == "ping":
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<16))
		l.hear(func(h *heard) { h.ping = true })
		answer(http.StatusOK, `{}`)
		return
	case r.Method == http.MethodGet && what == "rooms" && strings.Contains(path, l.probe):
		l.hear(func(h *heard) { h.alias = true })
		answer(http.StatusNotFound, `{"errcode":"M_NOT_FOUND","error":"no such room"}`)
		return
	case r.Method == http.MethodPut && what == "transactions" && l.takes(r.Body):
		answer(http.StatusOK, `{}`)
		return
	}
	answer(http.StatusServiceUnavailable, `{"errcode":"M_UNKNOWN","error":"the bridge is being checked and does not run yet"}`)
}

// shownToken is what the homeserver shows: in the header, and before Matrix 1.4 in the query.
func shownToken(r *http.Request) string {
	if token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found {
		return token
	}
	query, _ := url.ParseQuery(r.URL.RawQuery) // what can be read
	return query.Get("access_token")
}

// checkedTransaction is what of a transaction tells something (Application Service API, MSC2409, MSC3202).
type checkedTransaction struct {
	Events            []json.RawMessage `json:"events"`
	Ephemeral         []sentBy          `json:"ephemeral"`
	UnstableEphemeral []sentBy          `json:"de.sorunome.msc2409.ephemeral"`
	ToDevice          []sentBy          `json:"to_device"`
	UnstableToDevice  []sentBy          `json:"de.sorunome.msc2409.to_device"`
	Lists             *changedDevices   `json:"device_lists"`
	UnstableLists     *changedDevices   `json:"org.matrix.msc3202.device_lists"`
	Counts            json.RawMessage   `json:"device_one_time_keys_count"`
	OldCounts         json.RawMessage   `json:"org.matrix.msc3202.device_one_time_key_counts"`
	UnstableCounts    json.RawMessage   `json:"org.matrix.msc3202.device_one_time_keys_count"`
}

type sentBy struct {
	Type   string `json:"type"`
	Sender string `json:"sender"`
}

type changedDevices struct {
	Changed []string `json:"changed"`
	Left    []string `json:"left"`
}

// maxChecked is the size of a transaction that check looks at. What check causes is far smaller.
const maxChecked = 1 << 20

// takes looks at a transaction, and says whether nothing is lost when it is never seen again.
func (l *checkListener) takes(body io.Reader) bool {
	content, err := io.ReadAll(io.LimitReader(body, maxChecked+1))
	var t checkedTransaction
	if err != nil || len(content) > maxChecked || json.Unmarshal(content, &t) != nil {
		l.hear(func(h *heard) { h.foreign = true })
		return false
	}
	mine := func(s sentBy) bool { return s.Type == l.probe && s.Sender == l.bot }
	presence := func(s sentBy) bool { return s.Type == "m.presence" && s.Sender == l.bot }
	toDevice := append(t.ToDevice, t.UnstableToDevice...)
	foreign := len(t.Events) > 0 || slices.ContainsFunc(append(t.Ephemeral, t.UnstableEphemeral...), func(s sentBy) bool { return !presence(s) }) ||
		slices.ContainsFunc(toDevice, func(s sentBy) bool { return !mine(s) })
	extensions := t.Counts != nil || t.OldCounts != nil || t.UnstableCounts != nil
	lists := 0
	for _, devices := range []*changedDevices{t.Lists, t.UnstableLists} {
		if devices == nil {
			continue
		}
		if slices.Contains(devices.Changed, l.bot) {
			lists = 1 // under both names it is the same
		}
		extensions = extensions || len(devices.Changed) > 0
		foreign = foreign || len(devices.Left) > 0 || slices.ContainsFunc(devices.Changed, func(user string) bool { return user != l.bot })
	}
	l.hear(func(h *heard) {
		h.toDevice = h.toDevice || slices.ContainsFunc(toDevice, mine)
		h.extensions = h.extensions || extensions
		h.foreign = h.foreign || foreign
		h.lists += lists
	})
	return !foreign
}
