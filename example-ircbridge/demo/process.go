package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/ports"
)

// process is the bridge, running.
type process struct {
	cmd     *exec.Cmd
	log     *os.File
	logPath string
	bot     id.UserID
	ended   chan error
}

// tags are those that the demo was built with: the bridge gets them too, and so has encryption if the demo has it.
func tags() string {
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range build.Settings {
		if setting.Key == "-tags" {
			return setting.Value
		}
	}
	return ""
}

// startBridge builds the bridge, writes its configuration, makes its registration with its own command, tells the
// homeserver of it, and runs it.
func startBridge(ctx context.Context, dir string, hs *bridgetest.Homeserver, irc string) (*process, error) {
	binary := filepath.Join(dir, "trestle-irc")
	if out, err := exec.CommandContext(ctx, "go", "build", "-tags", tags(), "-o", binary, "./example-ircbridge").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the bridge: %w\n%s", err, out)
	}
	// Both stay reserved until the demo ends.
	appservice, _, err := ports.Reserve()
	if err != nil {
		return nil, err
	}
	media, _, err := ports.Reserve()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`# The demo's configuration. "trestle-irc config -print" shows every setting.
homeserver:
  address: %s
  domain: %s
appservice:
  listen: %s
  address: http://%[3]s
database: sqlite:bridge.db
media:
  listen: %s
  public_url: http://%[4]s
network:
  address: %s
  nick: trestle
  tls:
    enabled: false
  flood: # the demo's own IRC server does not mind
    burst: 50
    interval: 100ms
`, hs.URL(), hs.Domain(), appservice, media, irc)), 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, binary, "registration", "-config", config).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making the registration: %w\n%s", err, out)
	}
	if err := hs.AddAppService(filepath.Join(dir, "registration.yaml")); err != nil {
		return nil, err
	}
	p := &process{logPath: filepath.Join(dir, "bridge.log"), bot: id.NewUserID("ircbot", hs.Domain()), ended: make(chan error, 1)}
	if p.log, err = os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(binary, "run", "-config", config)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = attributes()
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the bridge: %w", err), p.log.Close())
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p, nil
}

// stop asks the bridge to stop, and expects it to do so well.
func (p *process) stop() error {
	defer p.log.Close()
	if err := terminate(p.cmd.Process); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.ended:
		if err != nil {
			return fmt.Errorf("the bridge did not end well: %w; its log is in %s", err, p.logPath)
		}
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("the bridge did not stop within 30 s"), p.cmd.Process.Kill())
	}
}
