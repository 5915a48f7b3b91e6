package e2e

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// IRCServer is a running IRC server of one of the kinds that the tests know.
type IRCServer struct {
	Kind    string // "inspircd" or "ngircd"
	Address string // host:port without TLS
	TLS     string // host:port with TLS, or empty
	// CAFile holds the certificate of TLS in PEM, for programs; Roots holds the same, for this one.
	CAFile string
	Roots  *x509.CertPool

	tb    testing.TB
	start func() *Process
	proc  *Process
}

// Start starts the server again, on the same ports, after Stop or Kill. Nothing of its channels is left.
func (s *IRCServer) Start() {
	s.tb.Helper()
	s.proc = s.start()
	s.proc.waitUntil("listening", accepts(s.Address))
	if s.TLS != "" {
		s.proc.waitUntil("listening with TLS", accepts(s.TLS))
	}
}

// Stop asks the server to end: its users see it go.
func (s *IRCServer) Stop() {
	s.tb.Helper()
	s.proc.mustRun()
	s.proc.Stop()
}

// Kill ends the server with SIGKILL.
func (s *IRCServer) Kill() {
	s.tb.Helper()
	s.proc.Kill()
}

// daemonUser is whom the IRC servers run as when the test is root, which both refuse to be.
func daemonUser(tb testing.TB) (uid, gid int) {
	tb.Helper()
	if os.Geteuid() != 0 {
		return os.Getuid(), os.Getgid()
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		tb.Fatalf("finding a user for the IRC servers: %v", err)
	}
	uid, err = strconv.Atoi(nobody.Uid)
	if err != nil {
		tb.Fatalf("finding a user for the IRC servers: %v", err)
	}
	gid, err = strconv.Atoi(nobody.Gid)
	if err != nil {
		tb.Fatalf("finding a user for the IRC servers: %v", err)
	}
	return uid, gid
}

// startIRCServer writes files into a directory of the server's own, in whose content @DIR@ stands for that directory, and
// starts the program with args, in which it does too.
func startIRCServer(tb testing.TB, s *IRCServer, files map[string]string, args ...string) *IRCServer {
	tb.Helper()
	path := program(tb, s.Kind, "irc")
	uid, gid := daemonUser(tb)
	dir := serverDir(tb, "", "trestle-"+s.Kind+"-", uid, gid)
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(content, "@DIR@", dir)), 0o600); err != nil {
			tb.Fatalf("configuring %s: %v", s.Kind, err)
		}
		if os.Geteuid() == 0 {
			if err := os.Chown(file, uid, gid); err != nil {
				tb.Fatalf("configuring %s: %v", s.Kind, err)
			}
		}
	}
	if s.CAFile != "" {
		s.CAFile = filepath.Join(dir, s.CAFile)
	}
	s.tb = tb
	s.start = func() *Process {
		words := make([]string, len(args))
		for i, arg := range args {
			words[i] = strings.ReplaceAll(arg, "@DIR@", dir)
		}
		cmd := exec.Command(path, words...)
		cmd.Dir = dir
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		}
		return startProcess(tb, s.Kind, filepath.Join(dir, "output.log"), cmd)
	}
	s.Start()
	return s
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
