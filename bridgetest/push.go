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
	"strings"
	"time"
)

func (hs *Homeserver) newPushClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			ResponseHeaderTimeout: hs.opts.PushTimeout, MaxIdleConnsPerHost: 5, DisableKeepAlives: !hs.traits.keepAlive, DialContext: hs.dial,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// push sends an appservice its transactions, one at a time, until ctx ends.
func (hs *Homeserver) push(ctx context.Context, as *appService) {
	for ctx.Err() == nil {
		hs.mu.Lock()
		step, next := hs.nextStep(as)
		hs.mu.Unlock()
		if step != nil {
			step(ctx)
			continue
		}
		var due <-chan struct{} // nil: nothing but something new is waited for
		stop := func() {}
		if !next.IsZero() {
			due, stop = hs.opts.Clock.until(next)
		}
		select {
		case <-as.wake:
		case <-due:
		case <-ctx.Done():
		}
		stop()
	}
}

// nextStep decides what the pusher does: a step, or waiting for something new, until a time unless that is zero.
func (hs *Homeserver) nextStep(as *appService) (step func(context.Context), next time.Time) {
	if as.url == "" {
		if as.waiting() > 0 {
			as.events, as.ephemeral, as.toDevice, as.lists = nil, nil, nil, nil
			hs.notify()
		}
		return nil, time.Time{}
	}
	if hs.traits.asksUsers {
		if user := hs.strangerToAsk(as); user != "" {
			return func(ctx context.Context) { hs.query(ctx, as, "users/"+quote(user)) }, time.Time{}
		}
	}
	t, next := hs.due(as)
	if t == nil {
		return nil, next
	}
	return hs.sendStep(as, t), time.Time{}
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

// sendStep makes the attempt at a transaction; its body is made now, with the data locked.
func (hs *Homeserver) sendStep(as *appService, t *transaction) func(context.Context) {
	data, generation := hs.body(as, t), as.generation
	return func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		hs.mu.Lock()
		as.abortSend = cancel
		hs.mu.Unlock()
		_, _, err := hs.ask(ctx, as, http.MethodPut, "transactions/"+t.id, data)
		hs.mu.Lock()
		defer hs.mu.Unlock()
		as.abortSend = nil
		if as.generation == generation { // otherwise the answer came after a restart, to nobody
			hs.attempted(as, t, err)
		}
	}
}

// answerError is an appservice's answer that is no success.
type answerError struct {
	status int
	body   string
}

func (e *answerError) Error() string {
	return fmt.Sprintf("HTTP %d %s", e.status, http.StatusText(e.status))
}

// ask makes a request to an appservice. What counts as success is one of the traits. The data must not be locked.
func (hs *Homeserver) ask(ctx context.Context, as *appService, method, path string, body []byte) (status int, answer []byte, err error) {
	hs.mu.Lock()
	address := strings.TrimSuffix(as.url, "/") + "/_matrix/app/v1/" + path
	hs.mu.Unlock()
	switch {
	case hs.traits.queryToken:
		address += "?access_token=" + as.reg.HSToken // as it is: what has another meaning in a URL breaks it
	case hs.opts.LegacyQueryToken:
		address += "?access_token=" + url.QueryEscape(as.reg.HSToken)
	}
	fault := hs.pushFaults.take(as.reg.ID, path)
	if fault != nil {
		if err := hs.sleep(ctx, fault.Delay); err != nil {
			return 0, nil, err
		}
	}
	var reader io.Reader
	switch {
	case body != nil && fault != nil && fault.CutRequest:
		reader = io.MultiReader(bytes.NewReader(body[:len(body)/2]), brokenReader{})
	case body != nil:
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, reader)
	if err != nil {
		return 0, nil, err
	}
	if hs.traits.agent != "" {
		req.Header.Set("User-Agent", hs.traits.agent)
		req.Header.Set("Accept", "application/json")
	}
	if fault != nil && fault.CutRequest && body != nil {
		req.ContentLength = int64(len(body))
	}
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
	if fault != nil && fault.LoseAnswer {
		return 0, nil, errCut
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 || hs.traits.only200 && resp.StatusCode != http.StatusOK {
		return resp.StatusCode, answer, &answerError{resp.StatusCode, string(answer)}
	}
	if hs.traits.needsJSON && !json.Valid(answer) {
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
