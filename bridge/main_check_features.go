package bridge

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// as asks as one of the bridge's users.
func (h *homeserverProbe) as(ctx context.Context, user, method, path, query string, body any) (*matrixAnswer, error) {
	var content []byte
	if body != nil {
		content, _ = json.Marshal(body) // of strings
	}
	return h.ask(ctx, method, path+"?user_id="+url.QueryEscape(user)+query, content, h.registration.ASToken)
}

// ghost asks for one that there is not, which some homeservers only refuse when it is outside of the namespaces, and for
// one that the bridge has made. Synapse and Dendrite refuse the first in the same words in either case: whether they would
// let the bridge make a ghost cannot be found out without making it.
func (h *homeserverProbe) ghost(ctx context.Context, f *findings) {
	nobody := "@" + h.cfg.Appservice.Ghosts + h.name + ":" + h.cfg.Homeserver.Domain
	answer, err := h.as(ctx, nobody, http.MethodGet, "/_matrix/client/v3/account/whoami", "", nil)
	if err == nil && answer.Code == "M_EXCLUSIVE" {
		f.fail("ghosts", h.brand.register(h.path()), "the homeserver does not let the bridge be %s: its copy of the registration has other namespaces", nobody)
		return
	}
	v, err := store.Visit(ctx, h.cfg.Database)
	if err != nil {
		return // said by checkDatabase, or there is none yet
	}
	defer v.Close()
	user, err := v.AnyGhost(ctx, h.bot)
	if err != nil {
		return
	}
	answer, err = h.as(ctx, user, http.MethodGet, "/_matrix/client/v3/account/whoami", "", nil)
	switch {
	case err != nil:
		f.fail("ghosts", "try again", "%v", err)
	case answer.status == http.StatusOK && answer.UserID == user:
		f.ok("ghosts", "the homeserver takes the bridge for %s, a ghost that it has made", user)
	default:
		f.fail("ghosts", h.brand.register(h.path()), "the homeserver does not let the bridge be %s, a ghost that it has made (%v): "+
			"its copy of the registration has other namespaces, or its database was put back to an older state", user, answer)
	}
}

// features tries what the bridge uses and homeservers differ in, with the bot. Versions say nothing of it.
func (h *homeserverProbe) features(ctx context.Context, f *findings) {
	device := strings.ToUpper(strings.ReplaceAll(h.name, "-", ""))[:20]
	path := "/_matrix/client/v3/devices/" + device
	made, err := h.as(ctx, h.bot, http.MethodPut, path, "", map[string]string{"display_name": "Trestle check, to be deleted"})
	works := false
	if err != nil || made.status/100 == 2 { // whose answer was lost may have been made
		defer h.deleteDevice(ctx, f, path)
	}
	if err == nil && made.status/100 == 2 {
		me, err := h.as(ctx, h.bot, http.MethodGet, "/_matrix/client/v3/account/whoami", "&device_id="+device, nil)
		works = err == nil && me.DeviceID == device
	}
	login := h.login(ctx)
	h.reportDevices(f, made, err, works, login)
	h.reportLogin(f, works, login)
	h.media(ctx, f)
	h.pushes(ctx, f, device, works)
	h.identity(ctx, f)
	if h.cfg.encrypts() && !works {
		f.fail("encryption", "see devices, above; or write encryption.mode: off", "keys belong to devices, and the homeserver does not let the bridge act as one")
	}
}

// deleteDevice removes what features has made, also when the check was interrupted.
func (h *homeserverProbe) deleteDevice(check context.Context, f *findings, path string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(check), 10*time.Second)
	defer cancel()
	var answer *matrixAnswer
	var err error
	before := h.heard()
	for range 2 {
		if answer, err = h.as(ctx, h.bot, http.MethodDelete, path, "", struct{}{}); err == nil && (answer.status == http.StatusOK || answer.status == http.StatusNotFound) {
			h.hearOut(check, before)
			return
		}
	}
	device := path[strings.LastIndex(path, "/")+1:]
	if err != nil {
		f.warn("devices", "delete it", "the device %s of %s, which this check has made, may be left: %v", device, h.bot, err)
		return
	}
	f.warn("devices", "delete it", "the device %s of %s, which this check has made, is left: %v", device, h.bot, answer)
}

// silence is how long nothing more must come from a homeserver that has told of the end of the device.
const silence = 200 * time.Millisecond

// hearOut waits until a homeserver that tells of devices has told that this one is gone. If nobody listened any more, it
// would hold the bridge for one that is down.
func (h *homeserverProbe) hearOut(ctx context.Context, before heard) {
	if h.listener == nil || before.lists == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, h.patience)
	defer cancel()
	for {
		now, changed := h.listener.state()
		var enough <-chan time.Time
		if now.lists > before.lists {
			enough = time.After(silence)
		}
		select {
		case <-changed:
		case <-enough:
			return
		case <-ctx.Done():
			return
		}
	}
}

// What a homeserver says to the login of an appservice (MSC2778).
const (
	loginOffered = "offered"
	loginRefused = "refused" // io.element.msc4190
	loginNone    = "none"
	loginUnknown = ""
)

// login tries a user whom the homeserver must refuse, so that nobody is logged in.
func (h *homeserverProbe) login(ctx context.Context) string {
	body, _ := json.Marshal(map[string]any{ // strings cannot fail
		"type": "m.login.application_service", "identifier": map[string]string{"type": "m.id.user", "user": "nobody-" + h.name},
	})
	answer, err := h.ask(ctx, http.MethodPost, "/_matrix/client/v3/login", body, h.registration.ASToken)
	switch {
	case err != nil:
		return loginUnknown
	case answer.Token != "": // a homeserver that does not look at namespaces: the login ends again
		_, _ = h.ask(context.WithoutCancel(ctx), http.MethodPost, "/_matrix/client/v3/logout", []byte("{}"), answer.Token)
		return loginOffered
	case strings.HasSuffix(answer.Code, "M_APPSERVICE_LOGIN_UNSUPPORTED"):
		return loginRefused
	case answer.Code == "M_UNRECOGNIZED", answer.status == http.StatusMethodNotAllowed:
		return loginNone
	case answer.Code == "M_FORBIDDEN", answer.Code == "M_EXCLUSIVE":
		return loginOffered
	}
	return loginUnknown
}

func (h *homeserverProbe) reportDevices(f *findings, made *matrixAnswer, err error, works bool, login string) {
	mend := ""
	switch h.brand {
	case brandSynapse, brandTuwunel, brandUnknown:
		key := "io.element.msc4190"
		if h.brand == brandTuwunel {
			key = "device_management"
		}
		mend = h.brand.reset(key, h.path())
	}
	switch {
	case works:
		f.ok("devices", "ghosts can have devices (MSC4190), and the bridge can act as them (MSC4326): what it sends again after a crash comes once")
	case err != nil:
		f.fail("devices", "try again", "%v", err)
	case made.status/100 == 2:
		f.warn("devices", "update the homeserver", "the homeserver makes devices, and does not let the bridge act as them (MSC4326): after its restart a message may come twice")
	case h.cfg.Appservice.DeviceMode == appservice.DeviceMSC4190:
		f.fail("devices", joinMends(mend, "or write appservice.device_mode: auto"), "%v makes no devices for ghosts (MSC4190; %v), and appservice.device_mode demands them", h.brand, made)
	case login == loginOffered:
		f.warn("devices", mend, "%v makes no devices for ghosts (MSC4190; %v), only by appservice login: after its restart a message may come twice", h.brand, made)
	default:
		f.warn("devices", mend, "%v makes no devices for ghosts (MSC4190; %v): after its restart a message may come twice", h.brand, made)
	}
}

func joinMends(mends ...string) string {
	var some []string
	for _, m := range mends {
		if m != "" {
			some = append(some, m)
		}
	}
	return strings.TrimPrefix(strings.Join(some, ", "), "or ")
}

// reportLogin also shows an older copy of the registration: Synapse refuses appservice login when io.element.msc4190 is in it.
func (h *homeserverProbe) reportLogin(f *findings, devices bool, login string) {
	switch {
	case login == loginRefused && h.registration.MSC4190:
		f.ok("login", "the homeserver refuses appservice login, as io.element.msc4190 of the registration asks; it is not needed")
	case login == loginRefused:
		f.warn("login", h.brand.register(h.path()), "the homeserver's copy of the registration has io.element.msc4190: true, which %s has not: it is another one", h.path())
	case login == loginNone:
		f.ok("login", "the homeserver has no login of its own (OAuth), which ghosts with devices do not need")
	case login == loginOffered && h.brand == brandSynapse && h.registration.MSC4190 && devices:
		f.warn("login", h.brand.register(h.path()), "Synapse lets ghosts log in, which io.element.msc4190 in %s forbids: its copy of the registration is an older one, or it is older than 1.121", h.path())
	case login == loginOffered:
		f.ok("login", "appservices can log their ghosts in (MSC2778)")
	default:
		f.warn("login", "", "whether appservices can log their ghosts in (MSC2778) could not be found out")
	}
}

// media tries endpoints in ways that make nothing.
func (h *homeserverProbe) media(ctx context.Context, f *findings) {
	answer, err := h.as(ctx, h.bot, http.MethodGet, "/_matrix/client/v1/media/config", "", nil)
	switch {
	case err != nil:
		f.fail("media", "try again", "%v", err)
	case answer.status == http.StatusOK && answer.Upload > 0:
		f.ok("media", "the homeserver has authenticated media (MSC3916), and takes files of up to %d MiB", answer.Upload>>20)
	case answer.status == http.StatusOK:
		f.ok("media", "the homeserver has authenticated media (MSC3916)")
	default:
		f.warn("media", "update the homeserver", "the homeserver has no authenticated media (MSC3916; %v): links to what people send may not work", answer)
	}
	answer, err = h.as(ctx, h.bot, http.MethodPut, "/_matrix/media/v3/upload/"+url.PathEscape(h.cfg.Homeserver.Domain)+"/"+h.name, "", nil)
	switch {
	case err != nil:
		f.fail("upload", "try again", "%v", err)
	case answer.Code == "M_UNRECOGNIZED", answer.status == http.StatusMethodNotAllowed, answer.status == http.StatusNotFound && answer.Code == "":
		f.ok("upload", "the homeserver has no asynchronous upload (MSC2246): a file is uploaded before its message")
	default:
		f.ok("upload", "the homeserver has asynchronous upload (MSC2246)")
	}
}
