package bridge

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
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
	brand        brand
	bot          string         // user ID
	name         string         // of what this check makes and sends: nobody else has it
	listener     *checkListener // nil when the bridge runs, or its address cannot be listened on
	reached      bool           // the homeserver calls back
	patience     time.Duration  // how long something is waited for that may never come
}

// serverIdentity is how a homeserver calls itself.
type serverIdentity struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// matrixAnswer holds what the questions are asked for. Errors follow the client-server API, "Standard error response".
type matrixAnswer struct {
	status   int
	header   string         // Server
	Code     string         `json:"errcode"`
	Error    string         `json:"error"`
	Versions []string       `json:"versions"`
	Server   serverIdentity `json:"server"`                   // federation API, "GET /_matrix/federation/v1/version"
	Unstable serverIdentity `json:"net.zemos.msc4383.server"` // MSC4383, in versions
	UserID   string         `json:"user_id"`
	DeviceID string         `json:"device_id"`
	Token    string         `json:"access_token"`
	Duration int64          `json:"duration_ms"`
	Upload   int64          `json:"m.upload.size"`
	// MasterKeys are those of cross-signing, by user.
	MasterKeys map[string]struct {
		Keys map[string]string `json:"keys"`
	} `json:"master_keys"`
}

// newProbe makes one; what it returns beside ends its connections.
func (p *program) newProbe(cfg *Config, r *appservice.Registration) (*homeserverProbe, func()) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	return &homeserverProbe{
		cfg: cfg, registration: r, patience: p.patience, bot: "@" + cfg.Appservice.Bot + ":" + cfg.Homeserver.Domain,
		name: "trestle-check-" + strings.ToLower(rand.Text()),
		client: &http.Client{
			Transport: transport, Timeout: 30 * time.Second,
			// A redirect could carry the token elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, transport.CloseIdleConnections
}

// checkHomeserver asks whether the homeserver is there, whether it knows the bridge, whether it reaches it, and what it can
// do. What depends on an answer that did not come is not asked.
func (p *program) checkHomeserver(ctx context.Context, f *findings, cfg *Config, r *appservice.Registration) {
	h, idle := p.newProbe(cfg, r)
	defer idle()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if !h.versions(ctx, f) || !h.token(ctx, f) {
		return
	}
	defer h.listen(f)()
	h.ping(ctx, f)
	h.ghost(ctx, f)
	h.features(ctx, f)
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
	answer := &matrixAnswer{status: response.StatusCode, header: response.Header.Get("Server")}
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
		f.fail("homeserver", "look whether it runs, and at homeserver.address", "%s: %v", address, err)
	case answer.status >= 300 && answer.status < 400:
		f.fail("homeserver", "write in homeserver.address where it leads to", "%s leads elsewhere (%v)", address, answer)
	case answer.status != http.StatusOK || len(answer.Versions) == 0:
		f.fail("homeserver", "write the homeserver's own URL in homeserver.address", "%s/_matrix/client/versions answers with %v", address, answer)
	default:
		f.ok("homeserver", "%s answers, %s, and knows Matrix up to %s", address, h.identify(ctx, answer), answer.Versions[len(answer.Versions)-1])
		return true
	}
	return false
}

// identify finds out what the homeserver is: by what it says of itself, and else by the Server header, which a reverse
// proxy may have changed.
func (h *homeserverProbe) identify(ctx context.Context, versions *matrixAnswer) (shown string) {
	said := []serverIdentity{versions.Server, versions.Unstable}
	if answer, err := h.ask(ctx, http.MethodGet, "/_matrix/federation/v1/version", nil, ""); err == nil && answer.status == http.StatusOK {
		said = append(said, answer.Server)
	}
	name, version, _ := strings.Cut(versions.header, "/")
	for _, s := range append(said, serverIdentity{name, version}) {
		if h.brand = brandOf(s.Name); h.brand != brandUnknown {
			return strings.TrimSpace(string(h.brand) + " " + printable(s.Version))
		}
	}
	return "does not say what it is"
}

// token asks who the bridge is. Without user_id the homeserver says who it takes the bridge for.
func (h *homeserverProbe) token(ctx context.Context, f *findings) bool {
	answer, err := h.ask(ctx, http.MethodGet, "/_matrix/client/v3/account/whoami", nil, h.registration.ASToken)
	switch {
	case err != nil:
		f.fail("token", "try again", "%v", err)
	case answer.status == http.StatusUnauthorized, answer.status == http.StatusForbidden:
		f.fail("token", h.brand.register(h.path()), "%v does not know the as_token (%v): it has no registration of this bridge, or an older one", h.brand, answer)
	case answer.status != http.StatusOK:
		f.fail("token", "look at its log", "the homeserver answers with %v", answer)
	case answer.UserID != h.bot:
		name, domain, _ := strings.Cut(answer.UserID, ":")
		if name == "@"+h.cfg.Appservice.Bot {
			f.fail("token", "write homeserver.domain: "+domain+", and make a new registration", "the homeserver is called %s, not %s", domain, h.cfg.Homeserver.Domain)
		} else {
			f.fail("token", h.brand.register(h.path()), "the homeserver takes the bridge for %s, not for %s: its copy of the registration is an older one", answer.UserID, h.bot)
		}
	default:
		f.ok("token", "the homeserver knows the bridge, as %s", h.bot)
		return true
	}
	return false
}

func (h *homeserverProbe) path() string {
	if absolute, err := filepath.Abs(h.cfg.Appservice.Registration); err == nil {
		return absolute
	}
	return h.cfg.Appservice.Registration
}

// listen takes the bridge's place, unless that is running. What it returns ends that.
func (h *homeserverProbe) listen(f *findings) (end func()) {
	listener, err := net.Listen("tcp", h.cfg.Appservice.Listen)
	if err != nil {
		if !isInUse(err) {
			f.fail("listen", "write an address of this machine in appservice.listen", "%v", err)
		}
		return func() {}
	}
	h.listener = newCheckListener(h.registration.HSToken, h.bot, h.name)
	server := watchServer(h.listener, zerolog.Nop())
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil { // what is being answered gets its answer
			_ = server.Close()
		}
		<-served
	}
}

// heard is what came to the listener, if there is one.
func (h *homeserverProbe) heard() heard {
	if h.listener == nil {
		return heard{}
	}
	now, _ := h.listener.state()
	return now
}

// ping lets the homeserver call back, to a listener of this check, or to the bridge if that is running. A homeserver without
// ping calls when somebody looks for an alias of the bridge's that is not there, which the others do as well: so the
// namespaces in their copy of the registration are tried without anything being made.
func (h *homeserverProbe) ping(ctx context.Context, f *findings) {
	body, _ := json.Marshal(map[string]string{"transaction_id": h.name}) // strings cannot fail
	answer, err := h.ask(ctx, http.MethodPost, "/_matrix/client/v1/appservice/"+url.PathEscape(h.registration.ID)+"/ping", body, h.registration.ASToken)
	address, again := h.cfg.Appservice.Address, h.brand.register(h.path())
	switch {
	case err != nil:
		f.fail("ping", "try again", "%v", err)
	case h.heard().wrongToken:
		f.fail("ping", again, "the homeserver shows another hs_token than that of %s: its copy of the registration is an older one", h.path())
	case answer.status == http.StatusOK && h.listener == nil:
		f.ok("ping", "the homeserver reached the running bridge at %s in %d ms", address, answer.Duration)
	case answer.status == http.StatusOK && !h.heard().ping:
		f.fail("ping", "write in appservice.address what leads to "+h.cfg.Appservice.Listen+", or stop what answers there; "+again,
			"somebody else answered the homeserver's ping, and not this check: its copy of the registration has another url than %s, or that leads elsewhere", address)
	case answer.status == http.StatusOK:
		h.reached = true
		f.ok("ping", "the homeserver reached this check at %s in %d ms", address, answer.Duration)
		h.alias(ctx, f, true)
	case answer.status == http.StatusNotFound, answer.Code == "M_UNRECOGNIZED":
		h.alias(ctx, f, false)
	case answer.Code == "M_CONNECTION_FAILED", answer.Code == "M_CONNECTION_TIMEOUT":
		f.fail("ping", "write in appservice.address what leads from the homeserver's machine to "+h.cfg.Appservice.Listen+", and make a new registration",
			"the homeserver does not reach %s (%s)", address, answer.Code)
	case answer.Code == "M_BAD_STATUS":
		f.fail("ping", "look at what listens there; or "+again, "something else answered at %s, or it knows another hs_token", address)
	case answer.Code == "M_URL_NOT_SET":
		f.fail("ping", again, "the homeserver's copy of the registration has no url")
	case answer.Code == "M_FORBIDDEN":
		f.fail("ping", again, "the homeserver knows the as_token under another id than %s: its copy of the registration is an older one", h.registration.ID)
	default:
		f.fail("ping", "look at its log", "the homeserver answers with %v", answer)
	}
}

// answeredElsewhere says whether somebody answers the homeserver's ping in the place of this process.
func (h *homeserverProbe) answeredElsewhere(ctx context.Context) bool {
	body, _ := json.Marshal(map[string]string{"transaction_id": h.name}) // strings cannot fail
	answer, err := h.ask(ctx, http.MethodPost, "/_matrix/client/v1/appservice/"+url.PathEscape(h.registration.ID)+"/ping", body, h.registration.ASToken)
	return err == nil && answer.status == http.StatusOK && !h.heard().ping
}

// alias looks for an alias that there is not.
func (h *homeserverProbe) alias(ctx context.Context, f *findings, pinged bool) {
	alias := "#" + h.cfg.Appservice.Ghosts + h.name + ":" + h.cfg.Homeserver.Domain
	claimed := h.listener != nil && matchesAny(h.registration.Namespaces.Aliases, alias)
	if claimed {
		// The answer is 404 whoever was asked: what counts is who asks.
		_, _ = h.ask(ctx, http.MethodGet, "/_matrix/client/v3/directory/room/"+url.PathEscape(alias), nil, h.registration.ASToken)
	}
	now, address := h.heard(), h.cfg.Appservice.Address
	switch {
	case now.wrongToken:
		f.fail("ping", h.brand.register(h.path()), "the homeserver shows another hs_token than that of %s: its copy of the registration is an older one", h.path())
	case now.alias && pinged:
		f.ok("namespaces", "the homeserver asks the bridge for its aliases")
	case now.alias:
		h.reached = true
		f.ok("ping", "%v has no ping, and reached this check at %s with a question", h.brand, address)
	case claimed && pinged:
		f.warn("namespaces", h.brand.register(h.path()), "the homeserver did not ask the bridge for %s: its copy of the registration has other namespaces", alias)
	case claimed:
		f.fail("ping", "look whether "+address+" leads from the homeserver's machine to "+h.cfg.Appservice.Listen+"; "+h.brand.register(h.path()),
			"%v has no ping, and did not ask at %s for an alias of the bridge's", h.brand, address)
	case !pinged:
		f.warn("ping", "write a message in a connected room to see whether it reaches "+address, "%v has no ping", h.brand)
	}
}

// matchesAny says whether an ID is in one of the namespaces, which match from the first character on.
func matchesAny(spaces []appservice.Namespace, id string) bool {
	return slices.ContainsFunc(spaces, func(ns appservice.Namespace) bool {
		// LoadRegistration has compiled it before.
		re, err := regexp.Compile("^(?:" + ns.Regex + ")")
		return err == nil && re.MatchString(id)
	})
}

// isInUse says whether somebody listens on an address already.
func isInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }
