package bridge

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
)

// homeserverProbe asks the homeserver a few questions by hand: a client that retries and hides details would be in the way.
type homeserverProbe struct {
	cfg          *Config
	registration *appservice.Registration
	client       *http.Client
}

// matrixAnswer holds what the questions are asked for. Errors follow the client-server API, "Standard error response".
type matrixAnswer struct {
	status   int
	Code     string   `json:"errcode"`
	Error    string   `json:"error"`
	Versions []string `json:"versions"`
	UserID   string   `json:"user_id"`
	Duration int64    `json:"duration_ms"`
}

// checkHomeserver asks whether the homeserver is there, whether it knows the bridge, and whether it reaches it. What
// depends on an answer that did not come is not asked.
func checkHomeserver(f *findings, cfg *Config, r *appservice.Registration) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	defer transport.CloseIdleConnections()
	h := &homeserverProbe{cfg, r, &http.Client{
		Transport: transport, Timeout: 30 * time.Second,
		// A redirect could carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	if h.versions(ctx, f) && h.token(ctx, f) {
		h.ping(ctx, f)
	}
}

func (h *homeserverProbe) ask(ctx context.Context, method, path string, body []byte, token string) (*matrixAnswer, error) {
	request, err := http.NewRequestWithContext(ctx, method, h.cfg.Homeserver.Address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := h.client.Do(request)
	if err != nil {
		// The URL is known, and said by the caller.
		if inner := (*url.Error)(nil); errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	answer := &matrixAnswer{status: response.StatusCode}
	if err := json.Unmarshal(content, answer); err != nil && response.StatusCode == http.StatusOK {
		return nil, errors.New("the answer is not from a Matrix homeserver")
	}
	return answer, nil
}

func (a *matrixAnswer) String() string {
	if a.Code == "" {
		return fmt.Sprintf("status %d", a.status)
	}
	return fmt.Sprintf("status %d %s: %s", a.status, a.Code, strings.ToValidUTF8(a.Error, "?"))
}

func (h *homeserverProbe) versions(ctx context.Context, f *findings) bool {
	answer, err := h.ask(ctx, http.MethodGet, "/_matrix/client/versions", nil, "")
	address := h.cfg.Homeserver.Address
	switch {
	case err != nil:
		f.wrong("homeserver", "%s: %v; look whether it runs, and at homeserver.address", address, err)
	case answer.status >= 300 && answer.status < 400:
		f.wrong("homeserver", "%s leads elsewhere (%v); write in homeserver.address where it leads to", address, answer)
	case answer.status != http.StatusOK || len(answer.Versions) == 0:
		f.wrong("homeserver", "%s/_matrix/client/versions answers with %v; write the homeserver's own URL in homeserver.address", address, answer)
	default:
		f.ok("homeserver", "%s answers, and knows Matrix up to %s", address, answer.Versions[len(answer.Versions)-1])
		return true
	}
	return false
}

// token asks who the bridge is. Without user_id the homeserver says who it takes the bridge for.
func (h *homeserverProbe) token(ctx context.Context, f *findings) bool {
	answer, err := h.ask(ctx, http.MethodGet, "/_matrix/client/v3/account/whoami", nil, h.registration.ASToken)
	bot := "@" + h.cfg.Appservice.Bot + ":" + h.cfg.Homeserver.Domain
	switch {
	case err != nil:
		f.wrong("token", "%v; try again", err)
	case answer.status == http.StatusUnauthorized, answer.status == http.StatusForbidden:
		f.wrong("token", "the homeserver does not know it (%v); name %s in app_service_config_files (Synapse) or app_service_api.config_files (Dendrite), and restart the homeserver", answer, h.registrationPath())
	case answer.status != http.StatusOK:
		f.wrong("token", "the homeserver answers with %v; look at its log", answer)
	case answer.UserID != bot:
		name, domain, _ := strings.Cut(answer.UserID, ":")
		if name == "@"+h.cfg.Appservice.Bot {
			f.wrong("token", "the homeserver is called %s, not %s; write homeserver.domain: %s, and make a new registration", domain, h.cfg.Homeserver.Domain, domain)
		} else {
			f.wrong("token", "the homeserver takes the bridge for %s, not for %s; restart the homeserver, so that it reads %s again", answer.UserID, bot, h.registrationPath())
		}
	default:
		f.ok("token", "the homeserver knows the bridge, as %s", bot)
		return true
	}
	return false
}

func (h *homeserverProbe) registrationPath() string { return h.cfg.Appservice.Registration }

// ping lets the homeserver call back, to a listener that only answers pings, or to the bridge if that is running.
func (h *homeserverProbe) ping(ctx context.Context, f *findings) {
	listener, err := net.Listen("tcp", h.cfg.Appservice.Listen)
	who := "the running bridge"
	if err == nil {
		who = "this check"
		server := watchServer(pingHandler(h.registration.HSToken), zerolog.Nop())
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(listener) }()
		defer func() { _ = server.Close(); <-served }()
	} else if !isInUse(err) {
		f.wrong("ping", "appservice.listen: %v; write an address of this machine", err)
		return
	}
	body, _ := json.Marshal(map[string]string{"transaction_id": "check-" + rand.Text()}) // strings cannot fail
	answer, err := h.ask(ctx, http.MethodPost, "/_matrix/client/v1/appservice/"+url.PathEscape(h.registration.ID)+"/ping", body, h.registration.ASToken)
	address := h.cfg.Appservice.Address
	switch {
	case err != nil:
		f.wrong("ping", "%v; try again", err)
	case answer.status == http.StatusOK:
		f.ok("ping", "the homeserver reached %s at %s in %d ms", who, address, answer.Duration)
	case answer.status == http.StatusNotFound, answer.Code == "M_UNRECOGNIZED":
		f.note("ping", "the homeserver has no ping (Dendrite has none); write a message in a connected room to see whether it reaches %s", address)
	case answer.Code == "M_CONNECTION_FAILED", answer.Code == "M_CONNECTION_TIMEOUT":
		f.wrong("ping", "the homeserver does not reach %s (%s); write in appservice.address what leads from the homeserver's machine to %s, and make a new registration", address, answer.Code, h.cfg.Appservice.Listen)
	case answer.Code == "M_BAD_STATUS":
		f.wrong("ping", "something else answered at %s, or it knows another hs_token; look at what listens there, and restart the homeserver, so that it reads %s again", address, h.registrationPath())
	case answer.Code == "M_URL_NOT_SET":
		f.wrong("ping", "the homeserver's registration has no url; restart the homeserver, so that it reads %s again", h.registrationPath())
	case answer.Code == "M_FORBIDDEN":
		f.wrong("ping", "the homeserver knows the token under another id; restart the homeserver, so that it reads %s again", h.registrationPath())
	default:
		f.wrong("ping", "the homeserver answers with %v; look at its log", answer)
	}
}

// pingHandler answers pings, and refuses transactions: they stay with the homeserver until the bridge runs.
func pingHandler(token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		given := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errcode":"M_FORBIDDEN","error":"wrong token"}`)
		case r.Method == http.MethodPost && r.URL.Path == "/_matrix/app/v1/ping":
			_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<16))
			_, _ = io.WriteString(w, `{}`)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN","error":"the bridge is being checked and does not run yet"}`)
		}
	})
}

// isInUse says whether somebody listens on an address already.
func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
