package appservice

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"maunium.net/go/mautrix"
)

var (
	// ErrPingUnsupported says that the homeserver knows no ping: Dendrite does not, nor does anything older than Matrix 1.7.
	ErrPingUnsupported = errors.New("the homeserver does not support appservice ping")
	// ErrPingElsewhere says that the homeserver was answered, and not by this process.
	ErrPingElsewhere = errors.New("somebody else answered the homeserver's ping")

	errPingPending = errors.New("the homeserver was not asked yet whether it reaches the bridge")
)

// pings are the pings that this process has asked for and what came of the last one.
type pings struct {
	mu      sync.Mutex
	waiting map[string]bool // by transaction ID: the homeserver has called
	result  error
	tried   bool
}

func (p *pings) expect(txnID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = make(map[string]bool)
	}
	p.waiting[txnID] = false
}

// came notes a ping of the homeserver, and says whether it is one that was asked for. One without a transaction ID, which
// the specification allows, may be any of them.
func (p *pings) came(txnID string) (ours bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for waiting := range p.waiting {
		if txnID == waiting || txnID == "" {
			p.waiting[waiting], ours = true, true
		}
	}
	return ours
}

func (p *pings) forget(txnID string) (came bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	came = p.waiting[txnID]
	delete(p.waiting, txnID)
	return came
}

func (p *pings) ended(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried, p.result = true, err
}

// Reached says whether the homeserver reaches this bridge, as far as the last ping tells: nil when it was answered,
// [ErrPingUnsupported] when the homeserver has none, and otherwise what is wrong and how to mend it.
func (as *AppService) Reached() error {
	as.pings.mu.Lock()
	defer as.pings.mu.Unlock()
	if !as.pings.tried {
		return errPingPending
	}
	return as.pings.result
}

// Ping asks the homeserver to call back (POST /_matrix/client/v1/appservice/{id}/ping), and returns how long its call
// took. A good ping also makes Synapse and Tuwunel send at once what they could not deliver. The error is
// [ErrPingUnsupported], [ErrPingElsewhere], or says what is wrong and how to mend it.
func (as *AppService) Ping(ctx context.Context) (took time.Duration, err error) {
	defer func() {
		if ctx.Err() == nil {
			as.pings.ended(err)
		}
	}()
	if err := as.Bot().EnsureRegistered(ctx); err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	txnID := rand.Text()
	as.pings.expect(txnID)
	resp, err := as.Bot().client("").AppservicePing(ctx, as.cfg.Registration.ID, txnID)
	came := as.pings.forget(txnID)
	switch {
	case isUnsupported(err):
		return 0, ErrPingUnsupported
	case err != nil:
		return 0, fmt.Errorf("ping: %w", as.explainPing(err))
	case !came:
		return 0, fmt.Errorf("ping: %w at %s: stop the other process that has this registration, or let the registration's url lead to this one and restart the homeserver", ErrPingElsewhere, as.cfg.Registration.URL)
	}
	return time.Duration(resp.DurationMS) * time.Millisecond, nil
}

// explainPing puts words to what the homeserver says of its call (client-server API, "POST
// /_matrix/client/v1/appservice/{appserviceId}/ping").
func (as *AppService) explainPing(err error) error {
	address := as.cfg.Registration.URL
	const again = "; then restart the homeserver, so that it reads the registration again"
	mend := ""
	switch errorCode(err) {
	case "M_CONNECTION_FAILED", "M_CONNECTION_TIMEOUT":
		mend = "the homeserver does not reach " + address + "; write in the registration's url what leads from the homeserver's machine to where the bridge listens" + again
	case "M_BAD_STATUS":
		mend = "what answers at " + address + " is not this bridge, or knows another hs_token; look at what listens there, and give both sides the same registration" + again
	case "M_URL_NOT_SET":
		mend = "the homeserver's copy of the registration has no url; give both sides the same registration" + again
	case codeForbidden:
		mend = "the homeserver knows the as_token under another id than " + as.cfg.Registration.ID + "; give both sides the same registration" + again
	default:
		return as.explain(err)
	}
	return fmt.Errorf("%s: %w", mend, err)
}

// greet registers the bot and pings until it is answered. Nothing waits for it: the homeserver may well start later.
func (as *AppService) greet(ctx context.Context) {
	for attempt := 1; ; attempt++ {
		took, err := as.Ping(ctx)
		switch {
		case err == nil:
			as.log.Info().Dur("took", took).Msg("The homeserver reaches the bridge")
			return
		case errors.Is(err, ErrPingUnsupported):
			as.log.Info().Msg("The homeserver does not support ping: whether it reaches the bridge shows with the first event")
			return
		case ctx.Err() != nil:
			return
		}
		as.log.Warn().Err(err).Str("code", errorCode(err)).Msg("The homeserver does not reach the bridge, or the bridge not the homeserver")
		select {
		case <-ctx.Done():
			return
		case <-as.quit:
			return
		case <-time.After(backoff(attempt)):
		}
	}
}

// postPing answers the homeserver's ping (Application Service API, POST /_matrix/app/v1/ping). Its answer is 200 whatever
// the body: that it came, with the right token, is all that it is about.
func (as *AppService) postPing(w http.ResponseWriter, r *http.Request) {
	var body struct {
		TransactionID string `json:"transaction_id"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&body)
	if err != nil && !errors.Is(err, io.EOF) {
		as.log.Warn().Err(err).Msg("The body of a ping is not what it should be")
	}
	as.log.Debug().Bool("asked_for", as.pings.came(body.TransactionID)).Msg("Ping from the homeserver")
	answerOK(w)
}

// isUnsupported says whether an error means that the homeserver does not have the endpoint at all. It is the homeserver that
// must say so: a 404 without an error code is what a reverse proxy answers while the homeserver behind it is restarted.
func isUnsupported(err error) bool {
	switch errorStatus(err) {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest:
		return errorCode(err) == codeUnrecognized
	}
	return false
}

// errorCode gives the Matrix error code of an answer, or "".
func errorCode(err error) string {
	var httpErr mautrix.HTTPError
	if errors.As(err, &httpErr) && httpErr.RespError != nil {
		return httpErr.RespError.ErrCode
	}
	return ""
}

func errorStatus(err error) int {
	var httpErr mautrix.HTTPError
	if errors.As(err, &httpErr) && httpErr.Response != nil {
		return httpErr.Response.StatusCode
	}
	return 0
}
