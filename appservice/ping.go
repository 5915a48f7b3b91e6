package appservice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"maunium.net/go/mautrix"
)

// ErrPingUnsupported says that the homeserver knows no ping: Dendrite does not, nor does anything older than Matrix 1.7.
var ErrPingUnsupported = errors.New("the homeserver does not support appservice ping")

// Ping asks the homeserver to call back (POST /_matrix/client/v1/appservice/{id}/ping), and returns how long its call
// took. A good ping also makes Synapse and Tuwunel send at once what they could not deliver.
func (as *AppService) Ping(ctx context.Context) (time.Duration, error) {
	if err := as.Bot().EnsureRegistered(ctx); err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	resp, err := as.Bot().client("").AppservicePing(ctx, as.cfg.Registration.ID, rand.Text())
	if isUnsupported(err) {
		return 0, ErrPingUnsupported
	} else if err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	return time.Duration(resp.DurationMS) * time.Millisecond, nil
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

func (as *AppService) postPing(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 64<<10))
	as.log.Debug().Msg("Ping from the homeserver")
	answerOK(w)
}

// isUnsupported says whether an error means that the homeserver does not have the endpoint at all.
func isUnsupported(err error) bool {
	var httpErr mautrix.HTTPError
	if !errors.As(err, &httpErr) || httpErr.Response == nil {
		return false
	}
	switch httpErr.Response.StatusCode {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest:
	default:
		return false
	}
	return httpErr.RespError == nil && httpErr.Response.StatusCode != http.StatusBadRequest || errorCode(err) == codeUnrecognized
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
