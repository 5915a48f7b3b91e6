package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"gopkg.in/yaml.v3"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/witness"
	"github.com/trestle-bridge/trestle/store"
)

// Bridge is the IRC bridge, built from this tree and run as its users run it: with a configuration file, and a
// registration that its own subcommand has made.
type Bridge struct {
	Bot          id.UserID
	Registration string           // path
	Nick         string           // of the relay bot on IRC
	Witness      *witness.Witness // of what the bridge is given, or nil

	tb      testing.TB
	dir     string
	domain  string
	program string
	config  map[string]any
	ready   string // URL that answers once the bridge serves its homeserver
	proc    *Process
}

// BridgeOptions say what the bridge stands between.
type BridgeOptions struct {
	SynapsePort int
	IRC         *IRCServer
	Database    string         // as the configuration has it; empty: SQLite in the bridge's directory
	TLS         bool           // towards the IRC server
	Network     map[string]any // more of the `network:` section
	Encryption  map[string]any // the `encryption:` section
	Witness     bool           // between Synapse and the bridge, both ways
}

// NewBridge builds the bridge, writes its configuration and has it make its registration. It is not started.
func NewBridge(tb testing.TB, opts BridgeOptions) *Bridge {
	tb.Helper()
	b := &Bridge{
		Bot: id.NewUserID("ircbot", DefaultDomain), Nick: "trestle", tb: tb, dir: tb.TempDir(), domain: DefaultDomain,
		program: buildBridge(tb),
	}
	b.Registration = filepath.Join(b.dir, "registration.yaml")
	listen, media := loopback(FreePort(tb)), loopback(FreePort(tb))
	b.ready = "http://" + listen + "/_matrix/app/v1/ping"
	address := "http://" + listen // as Synapse has it
	synapse := "http://" + loopback(opts.SynapsePort)
	if opts.Witness {
		b.Witness = witness.New(tb, listen)
		address, synapse = b.Witness.URL, b.Witness.Homeserver(tb, synapse)
	}
	database := opts.Database
	if database == "" {
		database = "sqlite:" + filepath.Join(b.dir, "bridge.db")
	}
	b.config = map[string]any{
		"homeserver": map[string]any{"address": synapse, "domain": b.domain},
		"appservice": map[string]any{
			"registration": b.Registration, "listen": listen, "address": address, "bot": "ircbot", "ghosts": "irc_",
		},
		"database": database,
		"media":    map[string]any{"listen": media, "public_url": "http://" + media},
		"log":      map[string]any{"level": "debug", "format": "json"},
		"bridge":   map[string]any{},
		"network":  networkSection(b.Nick, opts),
	}
	if opts.Encryption != nil {
		b.config["encryption"] = opts.Encryption
	}
	b.write()
	b.command("registration")
	return b
}

// Plumb puts a portal into the configuration, for the next start.
func (b *Bridge) Plumb(room id.RoomID, channel string) {
	b.tb.Helper()
	section := b.config["bridge"].(map[string]any)
	plumb, _ := section["plumb"].([]any)
	section["plumb"] = append(plumb, map[string]any{"room": room.String(), "channel": channel})
	b.write()
}

func (b *Bridge) configFile() string { return filepath.Join(b.dir, "config.yaml") }

func (b *Bridge) write() {
	b.tb.Helper()
	data, err := yaml.Marshal(b.config)
	if err == nil {
		err = os.WriteFile(b.configFile(), data, 0o600)
	}
	if err != nil {
		b.tb.Fatalf("writing the bridge's configuration: %v", err)
	}
}

// subcommand prepares one.
func (b *Bridge) subcommand(name string, options ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.tb.Context(), b.program, append([]string{name, "-config", b.configFile()}, options...)...)
	cmd.Dir = b.dir
	return cmd
}

// Ask runs a subcommand that ends by itself, and gives its exit status and all that it prints.
func (b *Bridge) Ask(name string, options ...string) (status int, output string) {
	b.tb.Helper()
	cmd := b.subcommand(name, options...)
	printed, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		b.tb.Fatalf("running trestle-irc %s: %v", name, err)
	}
	return cmd.ProcessState.ExitCode(), string(printed)
}

// try runs a subcommand that ends by itself.
func (b *Bridge) try(name string) error {
	output, err := b.subcommand(name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("trestle-irc %s: %w\n%s", name, err, output)
	}
	return nil
}

func (b *Bridge) command(name string) {
	b.tb.Helper()
	if err := b.try(name); err != nil {
		b.tb.Fatal(err)
	}
}

// Check runs the subcommand that tries everything, before the start, and fails the test if that finds fault.
func (b *Bridge) Check() {
	b.tb.Helper()
	b.command("check")
}

// Start starts the bridge and returns once it takes transactions.
func (b *Bridge) Start() {
	b.tb.Helper()
	if b.Witness != nil {
		b.Witness.Begins()
	}
	cmd := exec.Command(b.program, "run", "-config", b.configFile())
	cmd.Dir = b.dir
	b.proc = startProcess(b.tb, "the bridge", filepath.Join(b.dir, "bridge.log"), cmd)
	b.proc.waitUntil("answering its homeserver", func() error {
		resp, err := httpClient.Post(b.ready, "application/json", strings.NewReader("{}"))
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("HTTP status %s", resp.Status)
		}
		return nil
	})
}

// Stop sends SIGTERM and returns the exit code.
func (b *Bridge) Stop() int {
	b.tb.Helper()
	b.proc.mustRun()
	return b.proc.Stop()
}

// Kill ends the bridge with SIGKILL.
func (b *Bridge) Kill() {
	b.tb.Helper()
	b.proc.Kill()
}

// Ghost is the Matrix user of somebody on IRC.
func (b *Bridge) Ghost(nick string) id.UserID {
	return id.NewUserID("irc_"+strings.ToLower(nick), b.domain)
}

// Token is the appservice's token from the registration, for asking the homeserver what the bridge did there.
func (b *Bridge) Token() string {
	b.tb.Helper()
	token, err := tokenOf(b.Registration)
	if err != nil {
		b.tb.Fatal(err)
	}
	return token
}

// tokenOf reads the appservice's token from a registration file.
func tokenOf(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the registration: %w", err)
	}
	var registration struct {
		Token string `yaml:"as_token"`
	}
	if err := yaml.Unmarshal(data, &registration); err != nil || registration.Token == "" {
		return "", fmt.Errorf("the registration %s has no as_token: %w", path, err)
	}
	return registration.Token, nil
}

// DeadLetters says what the bridge has given up, by cause. The bridge must not be running.
func (b *Bridge) DeadLetters() (causes []string) {
	b.tb.Helper()
	s, err := store.Open(b.tb.Context(), b.config["database"].(string), store.Options{})
	if err != nil {
		b.tb.Fatalf("opening the bridge's database: %v", err)
	}
	defer s.Close()
	letters, err := s.DeadLetters(b.tb.Context(), store.LetterQuery{Limit: 1000})
	if err != nil {
		b.tb.Fatalf("reading the bridge's dead letters: %v", err)
	}
	for _, letter := range letters {
		causes = append(causes, letter.Cause)
	}
	return causes
}

var (
	buildOnce   sync.Once
	builtBridge string
	buildError  error
)

// buildBridge builds the bridge once for all tests, into a directory that the operating system clears away.
func buildBridge(tb testing.TB) string {
	tb.Helper()
	buildOnce.Do(func() {
		builtBridge = filepath.Join(os.TempDir(), fmt.Sprintf("trestle-irc-%d", os.Getpid()))
		buildError = compileBridge(builtBridge, "goolm")
	})
	if buildError != nil {
		tb.Fatalf("building the bridge: %v", buildError)
	}
	return builtBridge
}

func compileBridge(binary, tags string) error {
	cmd := exec.Command("go", "build", "-tags", tags, "-o", binary, "./example-ircbridge")
	cmd.Dir = ".."
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, output)
	}
	return nil
}
