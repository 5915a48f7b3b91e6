package soak

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/ports"
	"github.com/trestle-bridge/trestle/internal/witness"
)

func newSoak(t *testing.T, opts Options) *soak {
	deadline, ok := t.Deadline()
	if !ok {
		deadline = time.Now().Add(3 * time.Hour)
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline.Add(-20*time.Second))
	t.Cleanup(cancel)
	s := &soak{
		T: t, Options: opts, ctx: ctx, rng: rand.New(rand.NewPCG(opts.Seed, 0)), hs: opts.Homeserver, irc: opts.IRC, dir: t.TempDir(),
		start: (*exec.Cmd).Start, afterwards: func() {}, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, reached: map[string]int{}, taken: map[string]bool{},
	}
	s.config, s.log = filepath.Join(s.dir, "config.yaml"), filepath.Join(s.dir, "bridge.log")
	s.bot = id.NewUserID("ircbot", s.hs.Domain())
	s.wire = newWire(t, s.irc.Serve)
	listen, media, metrics := reserve(t), reserve(t), reserve(t)
	s.metrics = "http://" + metrics + "/metrics"
	s.witness = witness.New(t, listen)
	s.configure("\n", listen, media, metrics)
	out, err := exec.Command(s.Binary, "registration", "-config", s.config).CombinedOutput()
	if err != nil {
		t.Fatalf("making the registration: %v\n%s", err, out)
	}
	s.ok(s.hs.Register(filepath.Join(s.dir, "registration.yaml")))
	s.alice, err = s.hs.Person("alice")
	s.ok(err)
	s.carol, err = s.hs.Person("carol")
	s.ok(err)
	plumb := ""
	for i := range s.Rooms {
		room, err := s.alice.CreateRoom(s.ctx, s.bot)
		s.ok(err)
		channel := fmt.Sprintf("#room%d", i)
		s.rooms, s.channels = append(s.rooms, room), append(s.channels, channel)
		plumb += fmt.Sprintf("\n    - {room: %q, channel: %q}", room, channel)
	}
	s.configure("\n  plumb:"+plumb+"\n", listen, media, metrics)
	t.Cleanup(func() {
		if s.process != nil {
			s.process.kill()
			<-s.process.ended
		}
	})
	return s
}

func (s *soak) configure(plumb, listen, media, metrics string) {
	if s.Encryption != "" {
		plumb += "encryption: {mode: " + s.Encryption + "}\n"
	}
	s.ok(os.WriteFile(s.config, []byte(fmt.Sprintf(`homeserver: {address: %q, domain: %q}
appservice: {listen: %q, address: %q}
log: {level: warn}
database: %q
media: {listen: %q, public_url: "http://%[6]s", limits: {reader_requests: 0, room_requests: 0, file_requests: 0, all_requests: 0}}
metrics: {listen: %q}
bridge:
  command: "!irc"%s
network:
  address: %q
  nick: %s
  delivery: %s
  tls: {enabled: false}
  flood: {burst: 1000, interval: 1ms}
  reconnect: {first: 100ms, max: 1s}
`, s.witness.Homeserver(s.T, s.hs.URL()), s.hs.Domain(), listen, s.witness.URL, s.Database, media, metrics, plumb, s.wire.listener.Addr(), botNick, s.Delivery)), 0o600))
}

// reserve keeps a port for the test.
func reserve(t *testing.T) string {
	address, release, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return address
}

func (s *soak) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// begin starts a process.
func (s *soak) begin(failpoint string) { s.beginFrom(failpoint, "") }

// beginFrom starts one for which the failpoint counts once a file is there.
func (s *soak) beginFrom(failpoint, from string) {
	s.Helper()
	s.witness.Begins()
	var err error
	s.process, err = startBridge(s.Binary, s.config, s.log, failpoint, from, s.start)
	s.ok(err)
}

// entered waits until the bridge is in every channel.
func (s *soak) entered() {
	s.Helper()
	s.ok(s.wire.wait(s.ctx, s.process.ended, "the bridge is in its channels", s.wire.inChannels(s.Rooms)))
}

// dead waits until the process was killed, and the IRC server knows.
func (s *soak) dead() {
	s.Helper()
	select {
	case <-s.process.ended:
	case <-s.ctx.Done():
		s.Fatalf("the bridge is not dead: %v", s.ctx.Err())
	}
	s.ok(s.process.killed())
	s.afterwards()
	s.ok(s.wire.wait(s.ctx, nil, "the IRC server has noticed", s.wire.noLinks))
}

// stop is SIGTERM, after which the bridge ends well.
func (s *soak) stop() {
	s.Helper()
	s.schedule = append(s.schedule, plan{clean: true}.String())
	s.ok(s.process.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-s.process.ended:
	case <-s.ctx.Done():
		s.Fatalf("the bridge does not stop: %v", s.ctx.Err())
	}
	if s.process.err != nil {
		s.Fatalf("the bridge did not stop well: %v", s.process.err)
	}
	s.afterwards()
	s.ok(s.wire.wait(s.ctx, nil, "the IRC server has noticed", s.wire.noLinks))
}

// restart kills the homeserver and starts it again.
func (s *soak) restart(meanwhile func()) {
	s.witness.During(func() { s.hs.Restart(meanwhile) })
}

// until waits until nothing stands in the way any more, of which nobody tells when it comes about.
func (s *soak) until(obstacle func() string) {
	s.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for what := obstacle(); what != ""; what = obstacle() {
		select {
		case <-ticker.C:
		case <-s.process.ended:
			s.Fatalf("%s, and the bridge has ended: %v", what, s.process.err)
		case <-s.ctx.Done():
			s.Fatalf("%s: %v", what, s.ctx.Err())
		}
	}
}

// calm waits until nothing waits any more.
func (s *soak) calm() {
	s.Helper()
	s.entered()
	s.until(func() string {
		if s.figure("trestle_appservice_lapse_open") != 0 {
			return "the bridge looks for what the homeserver forgot"
		}
		waiting, outbox, events := s.hs.Waiting(), s.figure("trestle_store_outbox_rows"), s.figure("trestle_appservice_backlog_events")
		if waiting == "" && outbox == 0 && events == 0 {
			return ""
		}
		return fmt.Sprintf("there wait on the homeserver: %s; %v rows of the outbox, %v events in the bridge", waiting, outbox, events)
	})
}

// figure is one of the bridge's metrics; -1 while they cannot be had.
func (s *soak) figure(name string) float64 {
	resp, err := s.http.Get(s.metrics)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			if n, err := strconv.ParseFloat(value, 64); err == nil {
				return n
			}
		}
	}
	return -1
}

// end lets everything that waits go its way, and gives what is in the store then.
func (s *soak) end(l *load) *contents {
	// What a restart of the homeserver has cut off goes again when a later transaction has failed.
	missed := s.witness.Missed()
	l.writes(0, "m", func(marker string) (id.EventID, error) { return s.alice.SendText(s.ctx, s.rooms[0], marker) })
	for s.witness.Missed() == missed {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-s.ctx.Done():
			s.Fatalf("waiting until the homeserver has missed the bridge: %v", s.ctx.Err())
		}
	}
	s.begin("")
	s.calm()
	for room := range s.rooms {
		l.onMatrixLast(room)
		marker := l.says(l.regulars[0], room)
		s.ok(s.alice.Sees(s.ctx, s.rooms[room], marker))
	}
	s.echoed()
	s.calm()
	s.wire.mu.Lock()
	s.last = len(s.wire.links) - 1
	s.wire.mu.Unlock()
	s.stop()
	left, err := look(s.ctx, s.Database, s.dir)
	s.ok(err)
	return left
}

// echoed waits until the homeserver has sent the bridge the newest of every room: what ghosts have said comes back.
func (s *soak) echoed() {
	s.Helper()
	for _, room := range s.rooms {
		events, err := s.alice.Timeline(s.ctx, room)
		s.ok(err)
		newest := events[len(events)-1].ID
		s.until(func() string {
			if s.witness.Took(newest) {
				return ""
			}
			return fmt.Sprintf("the bridge has not got %s, the newest of %s", newest, room)
		})
	}
}

// tail is the end of a file.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := slices.Collect(strings.Lines(string(data)))
	return strings.Join(all[max(0, len(all)-lines):], "")
}
