package soak

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// buildBridge builds the IRC bridge with these tags, and options of go build besides.
func buildBridge(t *testing.T, binary, tags string, options ...string) {
	t.Helper()
	cmd := exec.Command("go", append(append([]string{"build", "-tags", tags, "-o", binary}, options...), "../../example-ircbridge")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the bridge: %v\n%s", err, out)
	}
}

// process is one process of the bridge.
type process struct {
	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{}
	err   error // once it has ended
}

// environment is the test's own, without what would be a setting of the bridge.
func environment() (env []string) {
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "TRESTLE_") {
			env = append(env, variable)
		}
	}
	return env
}

// startBridge starts a process that ends at a failpoint, which counts once the file from is there; empty: at once.
func startBridge(binary, config, log, failpoint, from string, start func(*exec.Cmd) error) (p *process, err error) {
	p = &process{cmd: exec.Command(binary, "run", "-config", config), ended: make(chan struct{})}
	if p.log, err = os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.Env = environment()
	if failpoint != "" {
		p.cmd.Env = append(p.cmd.Env, "FAILPOINT="+failpoint, "FAILPOINT_FROM="+from)
	}
	if err := start(p.cmd); err != nil {
		return nil, errors.Join(err, p.log.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = p.log.Close()
		close(p.ended)
	}()
	return p, nil
}

// kill is kill -9. The process may have ended already.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// killed says whether SIGKILL ended it, and nothing else.
func (p *process) killed() error {
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
			return nil
		}
	}
	return fmt.Errorf("the bridge ended by itself: %w", p.err)
}
