package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const token = "bench-token"

// child is a target's process.
type child struct {
	target *target
	dir    string
	cmd    *exec.Cmd
	addr   string
	ended  chan error // holds one
}

func (b *bench) start(ctx context.Context, t *target, dir string, more ...string) (*child, error) {
	args, err := t.args(dir)
	if err != nil {
		return nil, err
	}
	args = append(args, more...)
	args = append(args, "-listen", "127.0.0.1:0", "-hs-token", token)
	if t.sink && b.options.decode {
		args = append(args, "-decode")
	}
	if t.sink && b.options.profile != "" {
		args = append(args, "-pprof")
	}
	c, err := launch(t, dir, args)
	if err != nil {
		return nil, err
	}
	if t.sink {
		if err = c.healthy(ctx); err != nil {
			_ = c.stop()
			return nil, err
		}
	}
	return c, nil
}

// launch starts a program and waits until it says where it listens.
func launch(t *target, dir string, args []string) (*child, error) {
	c := &child{target: t, dir: dir, cmd: exec.Command(t.binary, args...), ended: make(chan error, 1)}
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	endDisk, err := onDisk(t.longer, c.cmd.Start)
	if err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		_, _ = io.Copy(io.Discard, out)
		err := c.cmd.Wait()
		endDisk()
		c.ended <- err
	}()
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		_ = c.stop()
		return nil, fmt.Errorf("it did not say where it listens, but %q: %w", line, err)
	}
	c.addr = addr
	return c, nil
}

// stop ends the process as an administrator would, and by force when that takes long.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(os.Interrupt)
	var err error
	select {
	case err = <-c.ended:
	case <-time.After(20 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.ended
		err = errors.New("it did not end within 20 s of an interrupt")
	}
	if c.target.after != nil {
		c.target.after(c.dir)
	}
	return err
}

// kill ends the process as kill -9 does; what args made for it stays for another start.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	c.ended <- <-c.ended // stop may still be called
}

func (c *child) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, into)
}

// post asks a sink to do something.
func (c *child) post(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodPost, path, &struct{}{})
}

func (c *child) do(ctx context.Context, method, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+c.addr+path, nil)
	if err != nil {
		return err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 500))
		return fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	if file, ok := into.(*os.File); ok {
		_, err = io.Copy(file, answer.Body)
		return err
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

func (c *child) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupWithin)
	defer cancel()
	for {
		err := c.get(ctx, "/healthz", &struct{}{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stats is what GET /stats of a sink answers; a peer has none.
type stats struct {
	Handled     int64   `json:"handled"`
	Requests    int64   `json:"requests"`
	RequestTime float64 `json:"request_time"`
	ParseTime   float64 `json:"parse_time"`
	CommitTime  float64 `json:"commit_time"`
	HandOver    float64 `json:"hand_over_time"`
}

func (s stats) since(before stats) stats {
	return stats{
		Handled: s.Handled - before.Handled, Requests: s.Requests - before.Requests,
		RequestTime: s.RequestTime - before.RequestTime, ParseTime: s.ParseTime - before.ParseTime,
		CommitTime: s.CommitTime - before.CommitTime, HandOver: s.HandOver - before.HandOver,
	}
}

func (c *child) stats(ctx context.Context) (s stats, err error) {
	if c.target.sink {
		err = c.get(ctx, "/stats", &s)
	}
	return s, err
}

// counts is what GET /count answers; a peer only has events, the file only transactions.
type counts struct {
	Events       int64 `json:"events"`
	Unique       int64 `json:"unique"`
	OutOfOrder   int64 `json:"out_of_order"`
	Dead         int64 `json:"dead"`
	Transactions int64 `json:"transactions"`
}

// settleWithin is how long everything acknowledged may take to be handled.
const settleWithin = 2 * time.Minute

// settle waits until all that was sent is handled.
func (c *child) settle(ctx context.Context, sent int) error {
	if c.target.keeps {
		return nil // there is no handling
	}
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	for {
		handled := int64(0)
		if c.target.sink {
			s, err := c.stats(ctx)
			if err != nil {
				return err
			}
			handled = s.Handled
		} else {
			var n counts
			if err := c.get(ctx, "/count", &n); err != nil {
				return err
			}
			handled = n.Events
		}
		if handled >= int64(sent) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d events were handled within %s: %w", handled, sent, settleWithin, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// verify counts what was handled.
func (c *child) verify(ctx context.Context, events, transactions int) error {
	var n counts
	if err := c.get(ctx, "/count", &n); err != nil {
		return err
	}
	var want counts
	switch {
	case c.target.keeps:
		want.Transactions = int64(transactions)
	case c.target.sink:
		want.Events, want.Unique = int64(events), int64(events)
	default:
		want.Events = int64(events)
	}
	if n != want {
		return fmt.Errorf("the count is wrong: %+v, not %+v", n, want)
	}
	return nil
}

// profile begins a CPU profile of a sink and returns what waits for its end. part is for the file's name.
func (b *bench) profile(ctx context.Context, c *child, part string) (end func()) {
	if b.options.profile == "" || !c.target.sink {
		return func() {}
	}
	if c.target.longer > 0 {
		part += "-slower"
	}
	file, err := os.Create(filepath.Join(b.options.profile, c.target.name+part+".pprof"))
	if err != nil {
		progress("no profile: %v", err)
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		seconds := max(int(b.length.Seconds()), 1)
		if err := c.get(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), file); err != nil {
			progress("no profile: %v", err)
		}
		_ = file.Close()
	}()
	return func() { <-done }
}
