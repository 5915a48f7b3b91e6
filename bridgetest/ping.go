package bridgetest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"time"
)

// postPing asks an appservice to show that it is there (MSC2659). A good ping makes a waiting retry happen at once.
func (hs *Homeserver) postPing(c *call) (any, error) {
	as := c.who.service
	if as == nil {
		return nil, forbidden("Only application services can use the /appservice/ping endpoint")
	}
	if as.reg.ID != c.vars["id"] {
		return nil, forbidden("Mismatching application service ID in path")
	}
	hs.mu.Lock()
	known := as.url != ""
	hs.mu.Unlock()
	if !known {
		return nil, badRequest("M_URL_NOT_SET", "The application service does not have a URL set")
	}
	var req struct {
		TransactionID json.RawMessage `json:"transaction_id,omitempty"`
	}
	if err := c.json(&req); err != nil {
		return nil, err
	}
	begun := time.Now()
	_, _, err := hs.ask(c.Context(), as, http.MethodPost, "ping", mustJSON(req))
	if err != nil {
		return nil, pingError(err)
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if !as.up && hs.started && hs.traits.pingWakes {
		as.nextTry = time.Time{}
		as.prod()
	}
	return map[string]any{"duration_ms": time.Since(begun).Milliseconds()}, nil
}

func pingError(err error) error {
	var bad *answerError
	var slow net.Error
	switch {
	case errors.As(err, &bad):
		e := refuse(http.StatusBadGateway, "M_BAD_STATUS", "%s", bad.Error())
		e.extra = map[string]any{"status": bad.status, "body": bad.body}
		return e
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return refuse(http.StatusGatewayTimeout, "M_CONNECTION_TIMEOUT", "%s", err)
	}
	return refuse(http.StatusBadGateway, "M_CONNECTION_FAILED", "%s", err)
}
