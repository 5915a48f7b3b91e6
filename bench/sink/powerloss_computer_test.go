//go:build linux && (amd64 || arm64)

package main

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/load"
	"github.com/trestle-bridge/trestle/bench/internal/powerloss"
	"github.com/trestle-bridge/trestle/bench/internal/seccomp"
	"github.com/trestle-bridge/trestle/internal/notrun"
)

// databaseName is that of the file, in a folder of its own.
const databaseName = "sink.db"

// patience bounds the wait for what must happen.
const patience = 2 * time.Minute

// computer is the machine that loses power, and the homeserver that sends to it, which does not. The homeserver sends as
// Synapse does: a transaction until it is acknowledged, then the next.
type computer struct {
	binary, folder string
	disk           *powerloss.Disk

	process *process
	ended   chan struct{} // closed when the process has ended by itself, or was killed
	said    *strings.Builder

	generator    *load.Generator
	sent         int           // transactions begun
	underWay     *load.Request // sent, and perhaps taken
	acknowledged int64         // events
	sending      chan error    // ends with what ended the sending

	forgotten int
}

func newComputer(t *testing.T, binary string) *computer {
	t.Helper()
	folder := t.TempDir()
	disk, err := powerloss.New(folder)
	if errors.Is(err, seccomp.ErrUnsupported) {
		notrun.Skip(t, err)
	} else if err != nil {
		t.Fatal(err)
	}
	c := &computer{binary: binary, folder: folder, disk: disk, generator: load.NewGenerator(testToken, 50, 1)}
	t.Cleanup(func() {
		c.off()
		disk.Close()
	})
	return c
}

// boot starts the sink. It returns when transactions are taken, or when the power is cut. An error is the sink's own.
func (c *computer) boot(t *testing.T) error {
	t.Helper()
	p := &process{cmd: exec.Command(c.binary, "-listen", "127.0.0.1:0", "-hs-token", testToken, "-db", filepath.Join(c.folder, databaseName))}
	said := &strings.Builder{}
	p.cmd.Stderr = said
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = c.disk.Start(p.cmd); errors.Is(err, seccomp.ErrUnsupported) {
		notrun.Skip(t, err)
	} else if err != nil {
		t.Fatal(err)
	}
	c.process, c.ended, c.said = p, make(chan struct{}), said
	first := make(chan string, 1)
	p.out.Go(func() {
		defer close(c.ended)
		in := bufio.NewReader(out)
		line, _ := in.ReadString('\n')
		first <- line
		_, _ = io.Copy(io.Discard, in)
	})
	select {
	case <-c.disk.Lost():
		return nil
	case line := <-first:
		if addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on "); ok {
			p.addr = addr
			return nil
		}
		c.off()
		return fmt.Errorf("the sink does not start: %s", strings.TrimSpace(said.String()))
	case <-time.After(patience):
		t.Fatal("the sink neither starts nor ends")
		return nil
	}
}

// off ends the process and the sending. What the process has not synced is lost, once restore says so.
func (c *computer) off() {
	c.disk.Cut()
	if c.process != nil {
		c.process.kill()
		c.process = nil
	}
	if c.sending != nil {
		<-c.sending
		c.sending = nil
	}
}

func (c *computer) isCut() bool {
	select {
	case <-c.disk.Lost():
		return true
	default:
		return false
	}
}

// send sends until the process does not answer any more. The channel is closed after so many transactions.
func (c *computer) send(transactions int) (enough <-chan struct{}) {
	reached := make(chan struct{})
	c.sending = make(chan error, 1)
	addr := c.process.addr
	go func() { c.sending <- c.sendAll(addr, transactions, reached) }()
	return reached
}

// wait waits for what send promised.
func (c *computer) wait(t *testing.T, enough <-chan struct{}) {
	t.Helper()
	select {
	case <-enough:
	case err := <-c.sending:
		c.sending = nil
		t.Fatalf("sending ended early: %v", err)
	case <-time.After(patience):
		t.Fatal("the sink takes no transactions")
	}
}

func (c *computer) sendAll(addr string, transactions int, reached chan<- struct{}) error {
	conn, err := load.Dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	sizes := []int{100, 1, 17, 1, 60, 1, 100, 3}
	for n := 1; ; n++ {
		if c.underWay == nil {
			c.underWay = c.generator.Transaction(sizes[c.sent%len(sizes)])
			c.sent++
		}
		if err = conn.Send(c.underWay); err != nil {
			return err
		}
		c.acknowledged += int64(c.underWay.Events)
		c.underWay = nil
		if n == transactions {
			close(reached)
		}
	}
}

// whole is complete, but ends without an error when the power is cut.
func (c *computer) whole() error {
	done, process := make(chan error, 1), c.process // which off takes away
	go func() { done <- c.complete(process) }()
	select {
	case err := <-done:
		if c.isCut() {
			return nil // whatever it was is there at the next start
		}
		return err
	case <-c.disk.Lost():
		c.off()
		<-done
		return nil
	}
}

// finish brings what was under way to its end, stops the sink, and looks once more.
func (c *computer) finish(t *testing.T) error {
	t.Helper()
	defer c.off()
	if err := c.boot(t); err != nil {
		return err
	}
	if err := c.complete(c.process); err != nil {
		return err
	}
	c.wait(t, c.send(1))
	if err := c.stop(t); err != nil {
		return err
	}
	c.restore(t, powerloss.Loss{})
	if err := errors.Join(c.sound(t), c.boot(t)); err != nil {
		return err
	}
	return c.complete(c.process)
}

// stop asks the sink to end, and waits for that or for the power to be cut.
func (c *computer) stop(t *testing.T) error {
	t.Helper()
	if err := c.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.disk.Lost():
		return nil
	case <-c.ended:
	case <-time.After(patience):
		t.Fatal("the sink does not end")
	}
	if err := c.process.cmd.Wait(); err != nil {
		return fmt.Errorf("the sink ended with %w: %s", err, c.said)
	}
	return nil
}

// untilCut waits for the loss of power.
func (c *computer) untilCut(t *testing.T) {
	t.Helper()
	select {
	case <-c.disk.Lost():
	case <-c.ended:
		if !c.isCut() {
			t.Fatalf("the sink ended by itself: %s", c.said)
		}
	case <-time.After(patience):
		t.Fatal("the call before which the power was to be cut does not come")
	}
}

// complete looks whether the sink has what was acknowledged, once and in order. What was under way may be there, as a
// whole. It is called while nothing is sent.
func (c *computer) complete(process *process) error {
	if err := process.settled(); err != nil {
		return err
	}
	var got counts
	if err := process.ask("/count", &got); err != nil {
		return err
	}
	want := counts{Events: c.acknowledged, Unique: c.acknowledged}
	if got == want {
		return nil
	}
	if c.underWay != nil {
		n := c.acknowledged + int64(c.underWay.Events)
		if (got == counts{Events: n, Unique: n}) {
			return nil
		}
		return fmt.Errorf("the count is %+v; %d events were acknowledged, and %d were under way", got, c.acknowledged, c.underWay.Events)
	}
	return fmt.Errorf("the count is %+v, and %d events were acknowledged", got, c.acknowledged)
}

// restore makes the folder what the loss of power left of it.
func (c *computer) restore(t *testing.T, loss powerloss.Loss) {
	t.Helper()
	c.off()
	n, err := c.disk.Restore(loss)
	if errors.Is(err, seccomp.ErrUnsupported) {
		notrun.Skip(t, err)
	} else if err != nil {
		t.Fatal(err)
	}
	c.forgotten += n
}

// sound lets SQLite check a copy of the database: the recovery of the original is the sink's.
func (c *computer) sound(t *testing.T) error {
	t.Helper()
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(c.folder)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, databaseName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil // lost before anything was promised, or the count will tell
	}
	driver := "sqlite3"
	if !hasDriver(driver) {
		driver = "sqlite"
	}
	db, err := sql.Open(driver, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err = db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err == nil && verdict != "ok" {
		err = errors.New(verdict)
	}
	if err != nil {
		return fmt.Errorf("SQLite's check of the database: %w", err)
	}
	return nil
}

func hasDriver(name string) bool {
	for _, d := range sql.Drivers() {
		if d == name {
			return true
		}
	}
	return false
}
