package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/witness"
)

const (
	botNick    = "trestle"
	appService = "irc"
	atMostOnce = "at_most_once"
	// steps is how much is done on Matrix, and half of what is done on IRC, while one process is in its channels.
	steps = 10
	// muchWaits is what may wait in the store before a process is left alone until everything has gone its way.
	muchWaits = 400
)

var errOver = errors.New("the process has ended")

// Options say what the bridge stands between, and how it is killed.
type Options struct {
	Homeserver Homeserver
	IRC        IRC
	Binary     string // the IRC bridge, built with the tag failpoints
	Delivery   string // what its sessions promise: at_most_once or at_least_once
	Database   string // as its configuration has it; a SQLite file is in a folder of the test's
	Seed       uint64 // of all choices
	Kills      int
	Rooms      int
	Patience   time.Duration // how long it may take to come to a failpoint, once everything was said
	Ahead      int           // how much is said on Matrix before the bridge is in its channels
	Encryption string        // the bridge's encryption.mode, where the homeserver's people make encrypted rooms
	Restarts   int           // of the homeserver while the bridge lives, at that many of the kills
	Between    int           // one of so many kills is followed by another, four times as many of those at a request to send
}

// soak is a homeserver, an IRC server, and the bridge between them that is killed.
type soak struct {
	*testing.T
	Options
	ctx  context.Context
	rng  *rand.Rand
	http *http.Client

	hs           Homeserver
	alice, carol Person
	bot          id.UserID
	rooms        []id.RoomID
	channels     []string
	irc          IRC
	wire         *wire
	witness      *witness.Witness

	dir, config, log, metrics string

	start      func(*exec.Cmd) error // a process
	afterwards func()                // what becomes of the disk when one has ended
	process    *process
	schedule   []string
	reached    map[string]int  // failpoints that killed
	taken      map[string]bool // messages from IRC that were in the store after a kill
	last       int             // the link that must have lost nothing
}

// Run kills the bridge, and fails the test for everything that is wrong in the end.
func Run(t *testing.T, opts Options) {
	s := newSoak(t, opts)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d of %s, %d kills; to try the same: SOAK_SEED=%[1]d", s.Seed, s.Delivery, s.Kills)
			t.Logf("what was done:\n  %s", strings.Join(s.schedule, "\n  "))
			t.Logf("the end of the bridge's log:\n%s", tail(s.log, 40))
		}
	})
	l := s.people()
	s.begin("")
	s.entered()
	s.stop()
	for killed := range s.Kills {
		p := newPlan(s.rng, s.points(), killed)
		p.restart = killed*s.Restarts/s.Kills != (killed+1)*s.Restarts/s.Kills
		s.life(l, p)
		c, err := look(s.ctx, s.Database, s.dir)
		s.ok(err)
		for _, marker := range c.outbox {
			s.taken[marker] = true
		}
		// What is asked for again after a restart shows whether the homeserver knows it from its database.
		if s.rng.IntN(s.Between) == 0 || strings.HasSuffix(p.point, "PUT send") && s.rng.IntN(s.Between/4) == 0 {
			s.schedule = append(s.schedule, "homeserver restarted")
			s.restart(func() {})
		}
		switch {
		case c.waiting > muchWaits:
			s.begin("")
			s.calm()
			s.stop()
		case s.rng.IntN(4) == 0: // so that not every start is one after some that did not end well
			s.begin("")
			s.entered()
			s.stop()
		}
	}
	left := s.end(l)
	t.Logf("%d kills, at: %v", s.Kills, s.reached)
	t.Logf("%d reactions, %d comings and goings, %d messages said on IRC while the bridge was there or not", l.reactions, l.joins, l.said)
	s.begin("") // for the links
	s.entered()
	for _, wrong := range s.check(l, left) {
		t.Error(wrong)
	}
	s.stop()
	must := s.points()
	switch {
	case s.Kills >= 300:
	case s.Encryption != "" && s.Kills >= 50:
		must = sealing
	default:
		return
	}
	for _, point := range must {
		if s.reached[point] == 0 {
			t.Errorf("no process came to %q: has the failpoint another name now?", point)
		}
	}
}

// hears waits until the bridge has brought something from IRC to Matrix, or has ended.
func (s *soak) hears(l *load) {
	s.Helper()
	if err := s.wire.wait(s.ctx, s.process.ended, "the bridge is in its channels", s.wire.inChannels(s.Rooms)); err != nil {
		if !errors.Is(err, errOver) {
			s.Fatal(err)
		}
		return
	}
	room := s.rng.IntN(s.Rooms)
	marker := l.says(l.regulars[0], room)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	go func() {
		select {
		case <-s.process.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := s.alice.Sees(ctx, s.rooms[room], marker); err != nil && !s.process.over() {
		s.Fatal(err)
	}
}

// life is one process of the bridge: people talk on both sides until it is killed.
func (s *soak) life(l *load, p plan) {
	s.schedule = append(s.schedule, p.String())
	failpoint := ""
	if p.point != "" {
		failpoint = fmt.Sprintf("%s:%d", p.point, p.n)
	}
	from := ""
	if p.heard {
		from = filepath.Join(s.dir, fmt.Sprint("heard ", len(s.schedule)))
	}
	s.beginFrom(failpoint, from)
	kill := func() *time.Timer { return time.AfterFunc(p.wait, s.process.kill) }
	if p.heard {
		s.hears(l)
		s.ok(os.WriteFile(from, nil, 0o600))
	}
	if p.point == "" && (!p.late || p.heard) {
		defer kill().Stop()
	}
	for range s.Ahead {
		l.onMatrix()
	}
	if err := s.wire.wait(s.ctx, s.process.ended, "the bridge is in its channels", s.wire.inChannels(s.Rooms)); !errors.Is(err, errOver) {
		s.ok(err)
	}
	if p.point == "" && p.late && !p.heard {
		defer kill().Stop()
	}
	for step := range steps {
		if p.restart && step == steps/2 {
			s.schedule = append(s.schedule, "homeserver restarted meanwhile")
			s.restart(func() {
				for range steps {
					l.onIRC()
				}
			})
		}
		if s.process.over() {
			break
		}
		l.onMatrix()
		l.onIRC()
		l.onIRC()
	}
	if p.point == "" {
		s.dead()
		return
	}
	// Nothing says that it gets there. Where it does not, it is killed where it is.
	timer := time.AfterFunc(s.Patience, s.process.kill)
	s.dead()
	if timer.Stop() {
		s.reached[p.point]++
	}
}
