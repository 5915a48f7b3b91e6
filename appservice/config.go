package appservice

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
)

// Device modes: how ghosts get the device that makes the homeserver remember their transaction IDs.
const (
	// DeviceAuto asks for a device as DeviceMSC4190 does, else as DeviceLogin does, and goes on without devices where the
	// homeserver has none. What was found out is remembered; see [AppService.DeviceSupport].
	DeviceAuto = "auto"
	// DeviceMSC4190 makes devices with PUT /devices/{id} (MSC4190); a homeserver that cannot is an error.
	DeviceMSC4190 = "msc4190"
	// DeviceLogin makes devices by logging in with the as_token (MSC2778); a homeserver that cannot is an error.
	DeviceLogin = "login"
	// DeviceNone never makes devices.
	DeviceNone = "none"
)

// Config is what [New] needs. Registration, HomeserverURL, ServerName, Store and Handler must be set.
type Config struct {
	// Registration is what the homeserver was told about this bridge.
	Registration *Registration
	// HomeserverURL is where the client-server API is, without path: "http://localhost:8008".
	HomeserverURL string
	// ServerName is the part after the colon of the homeserver's user IDs.
	ServerName string
	Store      *store.Store
	Handler    Handler
	Log        zerolog.Logger

	// MaxBody is the largest transaction that is taken, in bytes. Default 64 MiB. A limit below what the homeserver sends
	// (10 MB and more) stalls it for ever.
	MaxBody int64
	// BacklogLimit is how many events may wait in the store before transactions are held back. Default 500,000. It bounds
	// the memory of a backlog: about 5 bytes an event and 200 for each room that has any; all else is read when it is due.
	BacklogLimit int
	// Workers is how many lanes are worked on at once. Default 32.
	Workers int
	// HoldFor is how long the answer to a transaction is held back when it cannot be stored, before it is refused.
	// Default 20 s: Synapse waits 60 s, Dendrite 30 s. A commit that takes longer is not waited for.
	HoldFor time.Duration
	// QueryTimeout is how long the handler may take to answer a query of the homeserver, for a user, an alias or a search of
	// the network. Default 10 s: Synapse sends nothing to anybody while it waits for a user, up to 60 s, Dendrite 30 s.
	QueryTimeout time.Duration
	// AllowQueryToken takes the hs_token from ?access_token= as well, for homeservers older than Matrix 1.4.
	AllowQueryToken bool
	// LegacyPaths also serves the paths of before Matrix r0.1: /transactions, /users, /rooms without prefix, and
	// /_matrix/app/unstable/thirdparty.
	LegacyPaths bool
	// DeviceMode is one of the Device constants. Default DeviceAuto.
	DeviceMode string
	// MaxAge is how long a failing event is tried again before it becomes a dead letter. Default 24 h of waiting.
	MaxAge time.Duration
	// HTTPClient, when set, gives its Transport, Jar and Timeout to the client that talks to the homeserver.
	HTTPClient *http.Client
	// Metrics, when set, gets the collectors, all named trestle_appservice_*.
	Metrics prometheus.Registerer
}

func (c *Config) withDefaults() (Config, error) {
	out := *c
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if out.Registration == nil {
		wrong("no registration")
	}
	if out.Store == nil {
		wrong("no store")
	}
	if out.Handler == nil {
		wrong("no handler")
	}
	if out.ServerName == "" {
		wrong("no server name: it is the part after the colon of the homeserver's user IDs")
	}
	if u, err := url.Parse(out.HomeserverURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		wrong("homeserver URL %q: it must look like http://localhost:8008", out.HomeserverURL)
	}
	switch out.DeviceMode {
	case "":
		out.DeviceMode = DeviceAuto
	case DeviceAuto, DeviceMSC4190, DeviceLogin, DeviceNone:
	default:
		wrong("device mode %q: it must be %s, %s, %s or %s", out.DeviceMode, DeviceAuto, DeviceMSC4190, DeviceLogin, DeviceNone)
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"largest body", out.MaxBody}, {"backlog limit", int64(out.BacklogLimit)}, {"workers", int64(out.Workers)},
		{"hold time", int64(out.HoldFor)}, {"maximum age", int64(out.MaxAge)},
		{"query timeout", int64(out.QueryTimeout)},
	} {
		if n.value < 0 {
			wrong("%s %d: it must not be negative; leave it out for the default", n.name, n.value)
		}
	}
	orDefault(&out.MaxBody, 64<<20)
	orDefault(&out.BacklogLimit, 500_000)
	orDefault(&out.Workers, 32)
	orDefault(&out.HoldFor, 20*time.Second)
	orDefault(&out.MaxAge, 24*time.Hour)
	orDefault(&out.QueryTimeout, 10*time.Second)
	return out, errors.Join(errs...)
}

func orDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}
