package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trestle-bridge/trestle/bench/internal/load"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testToken = "test-token"

// killsVariable says how often the sink is killed, for runs longer than the usual one.
const killsVariable = "TRESTLE_KILLS"

// process is a sink that runs as a child.
type process struct {
	cmd  *exec.Cmd
	addr string
	out  sync.WaitGroup
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "sink")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the sink: %v\n%s", err, out)
	}
	return binary
}

func start(t *testing.T, binary, db string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, "-listen", "127.0.0.1:0", "-hs-token", testToken, "-db", db)}
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		p.kill()
		t.Fatalf("the sink said %q: %v", line, err)
	}
	p.addr = addr
	p.out.Go(func() { _, _ = io.Copy(io.Discard, out) })
	return p
}

// kill ends the process as a power cut would, save for what the system has not written yet.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	p.out.Wait()
	_ = p.cmd.Wait()
}

func (p *process) get(t *testing.T, path string, into any) {
	t.Helper()
	if err := p.ask(path, into); err != nil {
		t.Fatal(err)
	}
}

func (p *process) ask(path string, into any) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	r, err := client.Get("http://" + p.addr + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(r.Body)
		return fmt.Errorf("GET %s: %s: %s", path, r.Status, text)
	}
	if err = json.NewDecoder(r.Body).Decode(into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// settle waits until no event waits in the store.
func (p *process) settle(t *testing.T) {
	t.Helper()
	if err := p.settled(); err != nil {
		t.Fatal(err)
	}
}

func (p *process) settled() error {
	for range 6000 {
		var s stats
		if err := p.ask("/stats", &s); err != nil || s.WaitingEvents == 0 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("events still wait after a minute")
}

// times gives how often to do something, unless the variable says otherwise.
func times(t *testing.T, variable string, usual int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q: it must be a number from 1 on", variable, text)
	}
	return n
}

// A homeserver sends; the sink is killed again and again; what was not acknowledged is sent again. In the end every
// acknowledged event was handled once, in the order of its room. Everything that was sent is acknowledged in the end, so
// the figures must be equal.
func TestSink_KilledUnderLoad_LosesAndDoublesNothing(t *testing.T) {
	killedUnderLoad(t, build(t), filepath.Join(t.TempDir(), "sink.db"))
}

func TestSink_KilledUnderLoad_LosesAndDoublesNothingOnPostgreSQL(t *testing.T) {
	killedUnderLoad(t, build(t), storetest.Postgres(t))
}

func killedUnderLoad(t *testing.T, binary, db string) {
	p := start(t, binary, db)
	defer func() { p.kill() }()

	var addr atomic.Value
	addr.Store(p.addr)
	homeserver := &load.Resender{Addr: func() string { return addr.Load().(string) }}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var enough atomic.Bool
	sent := make(chan error, 1)
	go func() {
		defer homeserver.Close()
		g := load.NewGenerator(testToken, 50, 1)
		sizes := []int{100, 1, 17, 1, 60, 1, 100, 3}
		for i := 0; !enough.Load(); i++ {
			if err := homeserver.Send(ctx, g.Transaction(sizes[i%len(sizes)])); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()

	n := times(t, killsVariable, 5)
	for i := range n {
		wait := time.Duration(50+rand.IntN(250)) * time.Millisecond
		select {
		case err := <-sent:
			t.Fatalf("sending ended before kill %d: %v", i+1, err)
		case <-time.After(wait):
		}
		p.kill()
		p = start(t, binary, db)
		addr.Store(p.addr)
	}
	time.Sleep(100 * time.Millisecond)
	enough.Store(true)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	p.settle(t)

	var got counts
	p.get(t, "/count", &got)
	acknowledged := int64(homeserver.Acknowledged)
	if want := (counts{Events: acknowledged, Unique: acknowledged}); got != want {
		t.Fatalf("after %d kills the count is %+v, not %+v", n, got, want)
	}
	t.Logf("%d events in %d requests, %d kills", acknowledged, homeserver.Sendings, n)

	// The same once more from what is stored alone.
	p.kill()
	p = start(t, binary, db)
	var again counts
	if p.get(t, "/count", &again); again != got {
		t.Fatalf("after one more start the count is %+v, not %+v", again, got)
	}
}

// Interrupted, the sink finishes what is under way, and keeps the rest for the next start.
func TestSink_Interrupted_EndsWellAndKeepsWhatWaits(t *testing.T) {
	binary, db := build(t), filepath.Join(t.TempDir(), "sink.db")
	p := start(t, binary, db)
	conn, err := load.Dial(p.addr)
	if err != nil {
		t.Fatal(err)
	}
	g := load.NewGenerator(testToken, 20, 2)
	for range 10 {
		if err = conn.Send(g.Transaction(100)); err != nil {
			t.Fatal(err)
		}
	}
	_ = conn.Close()
	if err = p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.out.Wait()
	if err = p.cmd.Wait(); err != nil {
		t.Fatalf("after an interrupt: %v", err)
	}
	p = start(t, binary, db)
	defer p.kill()
	p.settle(t)
	var got counts
	if p.get(t, "/count", &got); got != (counts{Events: 1000, Unique: 1000}) {
		t.Fatalf("the count is %+v", got)
	}
}

func TestSink_MistakesOnTheCommandLine_AreNamed(t *testing.T) {
	for _, o := range []options{{}, {token: "t"}, {db: "x.db"}} {
		if err := run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "-hs-token and -db") {
			t.Errorf("%+v: error %v", o, err)
		}
	}
	missing := filepath.Join(t.TempDir(), "no", "such", "folder", "x.db")
	err := run(context.Background(), options{token: "t", db: missing, listen: "127.0.0.1:0"})
	if err == nil || !strings.Contains(err.Error(), filepath.Dir(missing)) {
		t.Errorf("a folder that is not there: error %v", err)
	}
	err = run(context.Background(), options{token: "t", db: filepath.Join(t.TempDir(), "x.db"), listen: "nonsense"})
	if err == nil || !strings.Contains(fmt.Sprint(err), "nonsense") {
		t.Errorf("an address that is none: error %v", err)
	}
}
