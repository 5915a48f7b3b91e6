package truth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Sender is a homeserver whose pushes are recorded.
type Sender struct {
	URL    string
	Domain string
	Alice  string       // the token of a person with that name, who is in no room
	Stop   func()       // ends the homeserver, for a restart
	Start  func() error // starts it again, on the same data and address
	// Patience is for how long what has to come may be waited for; Silence how long what must not come is watched for, which is
	// longer than the first pause before a retry.
	Patience, Silence time.Duration
}

// scenario is a Sender on which something happens. After an error nothing more does.
type scenario struct {
	*Pushes
	Sender
	ctx    context.Context
	client *http.Client
	out    strings.Builder
	txn    int
	room   string
	begun  int // how many requests there were at the beginning of the part
	err    error
}

// Record runs the scenario and returns what the appservice was sent, in a text that is the same for each homeserver that sends
// the same: [Pushed] is Synapse's.
func (p *Pushes) Record(ctx context.Context, sender Sender) (string, error) {
	s := p.begin(ctx, sender)
	s.invitation()
	s.events()
	s.ephemeral()
	s.devices()
	s.failure()
	s.success()
	s.restarts()
	return s.out.String(), s.err
}

// RecordFew runs a short one, for a homeserver that sends less; [PushedFew] is Synapse's without experimental features, with the
// older token in the query, to an appservice that has asked for the unstable key of ephemeral events.
func (p *Pushes) RecordFew(ctx context.Context, sender Sender) (string, error) {
	s := p.begin(ctx, sender)
	s.invitation()
	s.few()
	return s.out.String(), s.err
}

func (p *Pushes) begin(ctx context.Context, sender Sender) *scenario {
	s := &scenario{
		Pushes: p, Sender: sender, ctx: ctx,
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute},
	}
	s.room, _ = s.alice("POST", "createRoom", `{"preset": "public_chat", "name": "echo"}`)["room_id"].(string)
	return s
}

// request makes a request below /_matrix/client/v3 that must succeed. {room} is the room, {txn} an ID that is new each time.
func (s *scenario) request(token, method, path, body string) map[string]any {
	status, data := s.do(token, method, path, body)
	var answer map[string]any
	if err := json.Unmarshal(data, &answer); s.err == nil && (err != nil || status >= 300) {
		s.err = fmt.Errorf("%s %s: %d %s", method, path, status, data)
	}
	return answer
}

// status makes a request of the appservice itself, with an empty object, which must be answered with that status.
func (s *scenario) status(want int, method, path string) {
	if status, data := s.do(s.Registration.ASToken, method, path, "{}"); s.err == nil && status != want {
		s.err = fmt.Errorf("%s %s: %d %s", method, path, status, data)
	}
}

func (s *scenario) do(token, method, path, body string) (status int, answer []byte) {
	if s.err != nil {
		return 0, nil
	}
	s.txn++
	expand := func(in string, escape func(string) string) string {
		return strings.NewReplacer("{room}", escape(s.room), "{txn}", fmt.Sprint("t", s.txn), "{domain}", s.Domain).Replace(in)
	}
	at, beyond := "/_matrix/client/v3/", ""
	if beyond, _ = strings.CutPrefix(path, "../"); beyond != path {
		at, path = "/_matrix/client/", beyond
	}
	req, err := http.NewRequestWithContext(s.ctx, method, s.URL+at+expand(path, url.PathEscape), strings.NewReader(expand(body, plain)))
	if err != nil {
		s.err = err
		return 0, nil
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		s.err = err
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	answer, s.err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer
}

func (s *scenario) alice(method, path, body string) map[string]any {
	return s.request(s.Alice, method, path, body)
}

// ghost makes a request as the ghost g1.
func (s *scenario) ghost(method, path, body string) map[string]any {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	return s.request(s.Registration.ASToken, method, path+separator+"user_id=@echo_g1:"+s.Domain, body)
}

// says sends a message of alice and returns its ID.
func (s *scenario) says(words string) string {
	id, _ := s.alice("PUT", "rooms/{room}/send/m.room.message/{txn}", `{"msgtype": "m.text", "body": "`+words+`"}`)["event_id"].(string)
	return id
}

// await waits until something that came since a number is as wanted.
func (s *scenario) await(since int, what string, wanted func([]push) bool) {
	if s.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.Patience)
	defer cancel()
	s.err = s.wait(ctx, since, what, wanted)
}

// part records what comes of some acts: run does them, and what it returns has to come. Then alice says a word, after which
// nothing more of them comes.
func (s *scenario) part(title string, run func() []string) {
	if s.err != nil {
		return
	}
	s.begun = len(s.since(0))
	for _, text := range run() {
		s.await(s.begun, fmt.Sprintf("%q in %q", text, title), holds(strings.ReplaceAll(text, "{domain}", s.Domain)))
	}
	end := "the end of: " + title
	s.says(end)
	s.await(s.begun, end, holds(end))
	record(&s.out, title, s.since(s.begun))
}

// note writes down a finding.
func (s *scenario) note(format string, args ...any) {
	if s.err == nil {
		fmt.Fprintf(&s.out, format+"\n", args...)
	}
}
