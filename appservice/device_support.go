package appservice

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix"

	"github.com/trestle-bridge/trestle/store"
)

// ErrNoDevices says that the homeserver cannot make devices for ghosts, or does not let the bridge act as them.
var ErrNoDevices = errors.New("the homeserver has no devices for ghosts: put io.element.msc4190 (Synapse) and device_management (Tuwunel) into the " +
	"registration, give both sides the same and restart the homeserver; or set appservice.device_mode to auto or none")

const (
	// noDevicesFor is how long a homeserver that has no devices is not asked again: its administrator may change that.
	noDevicesFor = time.Hour
	// ownDevicesFor is the same for one whose devices only a token of their own can use.
	ownDevicesFor = 24 * time.Hour
	// versionsAgain is how long what could not be had is not asked for again: versions, and whether there are devices now.
	versionsAgain = time.Minute
	// versionsTimeout ends each question for versions. Others wait for the answer, and it decides little.
	versionsTimeout = 10 * time.Second

	devicesSetting = "appservice.devices"
	devicesLock    = "devices" // no user ID: these begin with @
)

// DeviceSupport is how a homeserver gives ghosts their devices. It cannot be read from its versions, and so it was found
// out by making one.
type DeviceSupport struct {
	// Method is DeviceMSC4190, DeviceLogin or DeviceNone; empty when no ghost has needed a device yet.
	Method string `json:"method"`
	// ActAs says whether the bridge can act as a device (MSC4326). If not, messages are sent without.
	ActAs bool `json:"act_as"`
	// Cause is what the homeserver said to the methods that it lacks; empty when it lacks none that were tried.
	Cause string `json:"cause,omitempty"`
	// Found is when it was found out.
	Found time.Time `json:"found"`
	// Software is the homeserver's name and version then, where it says them (GET /_matrix/federation/v1/version).
	Software string `json:"software,omitempty"`
}

// deviceRecord is a DeviceSupport as it is stored.
type deviceRecord struct {
	DeviceSupport
	Versions string           `json:"versions,omitempty"` // a hash of GET /_matrix/client/versions
	Setup    string           `json:"setup"`              // what of configuration and registration it depends on
	Flow     mautrix.AuthType `json:"flow,omitempty"`     // the name of appservice login
}

// DeviceSupport reads what was found out last about the homeserver's devices for ghosts. It asks nobody but the store.
func (as *AppService) DeviceSupport(ctx context.Context) (DeviceSupport, error) {
	record, err := as.readSupport(ctx)
	return record.DeviceSupport, err
}

func (as *AppService) readSupport(ctx context.Context) (s deviceRecord, err error) {
	value, err := as.store.Setting(ctx, devicesSetting)
	if errors.Is(err, store.ErrNotFound) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &s)
	}
	if err != nil {
		return deviceRecord{}, fmt.Errorf("read how the homeserver gives devices: %w", err)
	}
	return s, nil
}

// deviceSupport is what this process goes by.
type deviceSupport struct {
	known    atomic.Pointer[deviceRecord] // nil: to be found out, or to be read; what it points to is not changed
	now      func() time.Time
	read     bool      // the store was read; under devicesLock, as is all below
	compared bool      // the homeserver's versions were compared with those of then
	notUntil time.Time // before which they are not asked for
	timeout  time.Duration

	mu       sync.Mutex
	looking  bool      // somebody looks whether there are devices now
	lookFrom time.Time // before which nobody does
}

func newDeviceSupport() deviceSupport {
	return deviceSupport{now: time.Now, timeout: versionsTimeout}
}

// outdated gives what was found out when it is that there are no devices, and was found out so long ago that it may have
// changed; else nil.
func (d *deviceSupport) outdated() *deviceRecord {
	if s := d.known.Load(); s != nil && !s.ActAs && !d.fresh(s) {
		return s
	}
	return nil
}

// look runs find for one caller at a time, and not again soon after it has failed. done is false for those who need not
// wait for it.
func (d *deviceSupport) look(find func() error) (done bool) {
	d.mu.Lock()
	if d.looking || d.now().Before(d.lookFrom) {
		d.mu.Unlock()
		return false
	}
	d.looking = true
	d.mu.Unlock()
	err := find()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.looking = false; err != nil {
		d.lookFrom = d.now().Add(versionsAgain)
	}
	return err == nil
}

func (d *deviceSupport) fresh(s *deviceRecord) bool {
	age := d.now().Sub(s.Found)
	switch {
	case s.ActAs:
		return true
	case s.Method == DeviceNone:
		return age < noDevicesFor
	}
	return age < ownDevicesFor
}

// doubt makes the next ghost that needs a device find out anew. The store keeps the old answer until there is a new one.
func (d *deviceSupport) doubt(of *deviceRecord) { d.known.CompareAndSwap(of, nil) }

// knownSupport gives what was found out, now or by an earlier process under the same configuration and from the same version of
// the homeserver; nil when it must be found out. The caller holds devicesLock.
func (as *AppService) knownSupport(ctx context.Context) (*deviceRecord, error) {
	d := &as.devices
	if !d.read {
		s, err := as.readSupport(ctx)
		if err != nil {
			return nil, err
		}
		if d.read = true; s.Method != "" && s.Setup == as.deviceSetup() {
			d.known.Store(&s)
		}
	}
	s := d.known.Load()
	if s == nil || !d.fresh(s) {
		return nil, nil
	}
	if d.compared || d.now().Before(d.notUntil) {
		return s, nil
	}
	software, versions, err := as.askVersions(ctx)
	if err != nil { // it says nothing about devices, and neither can this
		as.log.Debug().Err(err).Msg("The homeserver's versions could not be had; devices are made as before")
		d.notUntil = d.now().Add(versionsAgain)
		return s, nil
	}
	d.compared = true
	differ := func(then, now string) bool { return then != "" && now != "" && then != now }
	if differ(s.Software, software) || differ(s.Versions, versions) {
		as.log.Info().Str("before", s.Software).Str("now", software).Msg("The homeserver is another version: how it gives devices is found out anew")
		d.doubt(s)
		return nil, nil
	}
	if then := *s; s.Versions == "" || s.Software == "" && software != "" { // they could not be had then
		then.Versions = versions
		if then.Software == "" {
			then.Software = software
		}
		return as.writeSupport(ctx, then)
	}
	return s, nil
}

// support is knownSupport for whoever does not hold the lock.
func (as *AppService) support(ctx context.Context) (*deviceRecord, error) {
	unlock, err := as.locks.Lock(ctx, devicesLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return as.knownSupport(ctx)
}

// remember stores what was found out. The caller holds devicesLock.
func (as *AppService) remember(ctx context.Context, s deviceRecord) (*deviceRecord, error) {
	s.Found, s.Setup = as.devices.now().UTC(), as.deviceSetup()
	software, versions, err := as.askVersions(ctx)
	if as.devices.compared = err == nil; err != nil {
		as.log.Debug().Err(err).Msg("The homeserver's versions could not be had")
		as.devices.notUntil = as.devices.now().Add(versionsAgain)
	}
	s.Software, s.Versions = software, versions
	return as.writeSupport(ctx, s)
}

// writeSupport is for who holds devicesLock.
func (as *AppService) writeSupport(ctx context.Context, s deviceRecord) (*deviceRecord, error) {
	value, err := json.Marshal(&s)
	if err == nil {
		err = as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error { return tx.PutSetting(devicesSetting, value) })
	}
	if err != nil {
		return nil, fmt.Errorf("write how the homeserver gives devices: %w", err)
	}
	as.devices.known.Store(&s)
	return &s, nil
}

// deviceSetup is what an answer depends on on this side: with another mode or registration it may be another.
func (as *AppService) deviceSetup() string {
	reg := as.cfg.Registration
	return fmt.Sprintf("%s of %s, msc4190 %v, device_management %v", as.cfg.DeviceMode, as.cfg.ServerName, reg.MSC4190, reg.DeviceManagement)
}

// askVersions gives the homeserver's software, empty where it does not tell, and a hash of what it says to be able to do.
// Neither request needs a token, and neither carries one.
func (as *AppService) askVersions(ctx context.Context) (software, versions string, err error) {
	var able struct {
		Versions []string       `json:"versions"`
		Unstable map[string]any `json:"unstable_features"`
	}
	server, err := as.askOpenly(ctx, "/_matrix/client/versions", &able)
	if err != nil {
		return "", "", err
	}
	canonical, err := json.Marshal(able)
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(canonical)
	var federation struct {
		Server struct{ Name, Version string }
	}
	if _, err := as.askOpenly(ctx, "/_matrix/federation/v1/version", &federation); err == nil && federation.Server.Version != "" {
		software = federation.Server.Name + " " + federation.Server.Version
	} else if version, ok := strings.CutPrefix(server, "Synapse/"); ok { // a listener for clients alone
		software = "Synapse " + version
	}
	as.gaps.from(software)
	return software, base64.RawURLEncoding.EncodeToString(sum[:12]), nil
}

// askOpenly also gives what answers by its own account.
func (as *AppService) askOpenly(ctx context.Context, path string, out any) (server string, err error) {
	ctx, cancel := context.WithTimeout(ctx, as.devices.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, as.homeserver.JoinPath(path).String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "Trestle")
	resp, err := as.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return resp.Header.Get("Server"), json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(out)
}
