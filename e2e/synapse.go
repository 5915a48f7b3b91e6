package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/synapseadmin"
)

// synapseMarker is what install.sh writes last into the tree that holds Synapse.
const synapseMarker = ".trestle-installed"

// SynapseOptions say how a Synapse differs from the plain one, which keeps its data in SQLite.
type SynapseOptions struct {
	// Port, when it has to be known before the start; otherwise a free one is taken.
	Port int
	// Domain is the server name; empty: DefaultDomain.
	Domain string
	// Postgres is the URI of an empty database to use in place of SQLite. It has to be one that is reached over TCP.
	Postgres string
	// Registrations are the paths of appservice registration files, copied before the start.
	Registrations []string
	// Config is YAML whose top-level keys take the place of those of the usual configuration.
	Config string
}

// DefaultDomain is the server name of a Synapse unless the options give one.
const DefaultDomain = "hs.test"

// Synapse is a running homeserver. Unless its options say otherwise, rate limits are off, and everything is on that an
// appservice can be sent.
type Synapse struct {
	URL, Domain string

	tb     testing.TB
	root   string // the tree that Synapse is installed in
	dir    string // its data directory, as this program sees it
	inside string // the same, as Synapse sees it
	secret string // with which users are registered
	proc   *Process
}

// StartSynapse starts a Synapse that ends with the test.
func StartSynapse(tb testing.TB, opts SynapseOptions) *Synapse {
	tb.Helper()
	root := synapseRoot(tb)
	srv := filepath.Join(root, "srv", "trestle")
	if err := os.MkdirAll(srv, 0o755); err != nil {
		tb.Fatalf("making Synapse's data directory: %v", err)
	}
	s := &Synapse{Domain: opts.Domain, tb: tb, root: root, secret: rand.Text()}
	s.dir = serverDir(tb, srv, "test-", 0, 0)
	s.inside = filepath.Join("/srv/trestle", filepath.Base(s.dir))
	if s.Domain == "" {
		s.Domain = DefaultDomain
	}
	port := opts.Port
	if port == 0 {
		port = FreePort(tb)
	}
	s.URL = fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := s.configure(port, opts); err != nil {
		tb.Fatalf("configuring Synapse: %v", err)
	}
	s.Start()
	return s
}

// synapseRoot finds the tree that install.sh has made.
func synapseRoot(tb testing.TB) string {
	tb.Helper()
	root := os.Getenv("TRESTLE_SYNAPSE_ROOT")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			tb.Fatalf("finding Synapse: %v", err)
		}
		root = filepath.Join(cache, "trestle", "synapse")
	}
	if _, err := os.Stat(filepath.Join(root, synapseMarker)); err != nil {
		tb.Fatalf("Synapse is not installed in %s, and this test needs it: run `e2e/install.sh synapse` as root", root)
	}
	if os.Geteuid() != 0 {
		tb.Fatal("Synapse runs in a changed root, which only root may enter: run this test as root")
	}
	return root
}

// Start starts Synapse again on the same data and port, after Stop or Kill, and returns once it answers.
func (s *Synapse) Start() {
	s.tb.Helper()
	cmd := exec.Command("/usr/bin/python3", "-m", "synapse.app.homeserver",
		"-c", filepath.Join(s.inside, "homeserver.yaml"), "-c", filepath.Join(s.inside, "config.yaml"))
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" + s.inside, "PYTHONDONTWRITEBYTECODE=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: s.root}
	s.proc = startProcess(s.tb, "Synapse", filepath.Join(s.dir, "homeserver.log"), cmd)
	s.proc.waitUntil("answering", func() error {
		resp, err := httpClient.Get(s.URL + "/_matrix/client/versions")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("HTTP status %s", resp.Status)
		}
		return nil
	})
}

// Stop asks Synapse to end and waits until it has.
func (s *Synapse) Stop() {
	s.tb.Helper()
	s.proc.mustRun()
	s.proc.Stop()
}

// Kill ends Synapse with SIGKILL.
func (s *Synapse) Kill() {
	s.tb.Helper()
	s.proc.Kill()
}

// User registers a user with the shared secret and starts to sync as that user.
func (s *Synapse) User(name string) *MatrixUser {
	s.tb.Helper()
	return startMatrixUser(s.tb, s.login(name, false))
}

// login registers a user with the shared secret.
func (s *Synapse) login(name string, admin bool) *mautrix.Client {
	s.tb.Helper()
	return s.register(name, rand.Text(), admin)
}

// register registers a user with a password, and logs it in.
func (s *Synapse) register(name, password string, admin bool) *mautrix.Client {
	s.tb.Helper()
	anonymous, err := mautrix.NewClient(s.URL, "", "")
	if err != nil {
		s.tb.Fatalf("registering %s: %v", name, err)
	}
	anonymous.Client = httpClient
	ctx, cancel := context.WithTimeout(s.tb.Context(), patience)
	defer cancel()
	resp, err := (&synapseadmin.Client{Client: anonymous}).SharedSecretRegister(ctx, s.secret, synapseadmin.ReqSharedSecretRegister{
		Username: name, Password: password, Admin: admin,
	})
	if err != nil {
		s.tb.Fatalf("registering %s: %v", name, err)
	}
	client, err := mautrix.NewClient(s.URL, resp.UserID, resp.AccessToken)
	if err != nil {
		s.tb.Fatalf("registering %s: %v", name, err)
	}
	client.DeviceID = resp.DeviceID
	client.Client = httpClient
	return client
}

// httpClient keeps no connections, so that none is found dead after a server's restart.
var httpClient = &http.Client{
	Timeout:   90 * time.Second,
	Transport: &http.Transport{DisableKeepAlives: true},
}
