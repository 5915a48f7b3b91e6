package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startPatience = 2 * time.Minute // for a server to answer after its start
	stopPatience  = time.Minute     // for a process to end after SIGTERM
)

// Process is a program that was started for a test. Only the test's goroutine calls its methods.
type Process struct {
	tb     testing.TB
	name   string
	output string // path of the file with its standard output and error
	cmd    *exec.Cmd
	ended  chan struct{} // closed once the process was waited for
}

// startProcess starts cmd with its output appended to the file output, and sees to it that it ends with the test, or
// with the test program. When the test has failed, the end of the output is shown.
func startProcess(tb testing.TB, name, output string, cmd *exec.Cmd) *Process {
	tb.Helper()
	file, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		tb.Fatalf("starting %s: %v", name, err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // an interrupt at the terminal is for the test program, which then cleans up
	if err := cmd.Start(); err != nil {
		tb.Fatalf("starting %s: %v", name, err)
	}
	p := &Process{tb: tb, name: name, output: output, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the last lines of %s (%s):\n%s", name, filepath.Base(output), lastLines(output, 60))
		}
		p.kill()
	})
	return p
}

// Stop sends SIGTERM, waits for the end and returns the exit code.
func (p *Process) Stop() int {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Fatalf("stopping %s: %v", p.name, err)
	}
	return p.Wait(stopPatience)
}

// Wait waits for the process to end by itself and returns the exit code: -1 if a signal ended it.
func (p *Process) Wait(patience time.Duration) int {
	p.tb.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.tb.Fatalf("%s has not ended after %s", p.name, patience)
		return -1
	}
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	p.tb.Helper()
	p.mustRun()
	p.kill()
}

func (p *Process) kill() {
	if p.Running() {
		_ = p.cmd.Process.Kill()
	}
	<-p.ended
}

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *Process) mustRun() {
	p.tb.Helper()
	if !p.Running() {
		p.tb.Fatalf("%s is not running any more: %s\n%s", p.name, p.cmd.ProcessState, lastLines(p.output, 40))
	}
}

// waitUntil polls ready until it returns nil, and fails the test when the process ends or does not get ready.
func (p *Process) waitUntil(what string, ready func() error) {
	p.tb.Helper()
	var err error
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		p.mustRun()
		if err = ready(); err == nil {
			return
		}
	}
	p.tb.Fatalf("%s: not %s after %s: %v\n%s", p.name, what, startPatience, err, lastLines(p.output, 40))
}

func accepts(address string) func() error {
	return func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	}
}

func lastLines(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	lines := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

// program finds an installed server. sbin is often missing from PATH.
func program(tb testing.TB, name, part string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	if err != nil {
		tb.Fatalf("%s is not installed, and this test needs it: run `e2e/install.sh %s` as root", name, part)
	}
	return path
}

// serverDir makes a directory for a server that runs as uid and gid. It is not below tb.TempDir, whose parents only
// the test's own user may enter.
func serverDir(tb testing.TB, parent, pattern string, uid, gid int) string {
	tb.Helper()
	dir, err := os.MkdirTemp(parent, strings.ReplaceAll(pattern, "/", "-"))
	if err != nil {
		tb.Fatalf("making a directory for a server: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("removing a server's directory: %v", err)
		}
	})
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, uid, gid); err != nil {
			tb.Fatalf("making a directory for a server: %v", err)
		}
	}
	return dir
}
