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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rooms       = 20
	botNick     = "trestle"
	appService  = "irc"
	atMostOnce  = "at_most_once"
	atLeastOnce = "at_least_once"
	onSQLite    = "sqlite"
	onPostgres  = "postgres"
	sqliteFile  = "sqlite:bridge.db"
	// steps is how much is done on each side while one process lives.
	steps = 20
	// muchWaits is what may wait in the store before a process is left alone until everything has gone its way.
	muchWaits = 400
)

var errOver = errors.New("the process has ended")

// soak is a homeserver, an IRC server, and the bridge between them that is killed.
type soak struct {
	*testing.T
	ctx      context.Context
	rng      *rand.Rand
	delivery string
	http     *http.Client

	hs           *bridgetest.Homeserver
	alice, carol *bridgetest.User
	bot          id.UserID
	rooms        []id.RoomID
	channels     []string
	irc          *ircd.Server
	people       sync.WaitGroup // on IRC
	wire         *wire
	relay        *relay

	dir, binary, config, database, log, metrics string

	start      func(*exec.Cmd) error // a process
	afterwards func()                // what becomes of the disk when one has ended
	process    *process
	schedule   []string
	reached    map[string]int  // failpoints that killed
	taken      map[string]bool // messages from IRC that were in the store after a kill
	last       int             // the link that must have lost nothing
}

// numberOf reads a number from the environment.
func numberOf(t *testing.T, variable string, usual int64) int64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q: it must be a number from 1 on", variable, text)
	}
	return n
}

func TestBridge_KilledAgainAndAgain_LosesAndDoublesNothing(t *testing.T) {
	kills := int(numberOf(t, "SOAK_KILLS", 6))
	seed := numberOf(t, "SOAK_SEED", time.Now().UnixNano())
	binary := filepath.Join(t.TempDir(), "trestle-irc")
	buildBridge(t, binary, "goolm,failpoints")
	// What the sessions of the IRC bridge promise is a setting, so there are two runs. The usual one has most of the kills.
	// The store that most people have has most of the kills too; SOAK_STORE=postgres gives the other all of them.
	few := max(kills/5, 2)
	if text := os.Getenv("SOAK_STORE"); text != "" && text != onPostgres && text != onSQLite {
		t.Fatalf("SOAK_STORE is %q: it must be %s or %s, or be left out for some of both", text, onSQLite, onPostgres)
	}
	elsewhere := os.Getenv("SOAK_STORE") == onPostgres
	if !elsewhere {
		own := few
		if os.Getenv("SOAK_STORE") == "" {
			own += few
		}
		t.Run(atMostOnce, func(t *testing.T) { run(t, binary, atMostOnce, uint64(seed), max(kills-own, 2), sqliteFile) })
		t.Run(atLeastOnce, func(t *testing.T) { run(t, binary, atLeastOnce, uint64(seed)+1, few, sqliteFile) })
	}
	if os.Getenv("SOAK_STORE") != onSQLite {
		if !elsewhere {
			kills = few
		}
		t.Run(atMostOnce+"_"+onPostgres, func(t *testing.T) { run(t, binary, atMostOnce, uint64(seed)+2, kills, storetest.Postgres(t)) })
	}
}

func run(t *testing.T, binary, delivery string, seed uint64, kills int, database string) {
	s := newSoak(t, binary, delivery, seed, database)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d of %s, %d kills; to try the same: SOAK_SEED=%[1]d", seed, delivery, kills)
			t.Logf("what was done:\n  %s", strings.Join(s.schedule, "\n  "))
			t.Logf("the end of the bridge's log:\n%s", tail(s.log, 40))
		}
	})
	l := &load{soak: s, byRoom: make([][]*written, rooms), carolIn: map[int]bool{}}
	for _, nick := range []string{"ann", "bob", "cid", "dee"} {
		l.enters(nick, s.channels)
		l.regulars = append(l.regulars, nick)
	}
	s.begin("")
	s.entered()
	s.stop()
	for killed := range kills {
		p := newPlan(s.rng, killed)
		s.life(l, p)
		c, err := look(s.ctx, s.database, s.dir)
		s.ok(err)
		for _, marker := range c.outbox {
			s.taken[marker] = true
		}
		// What is asked for again after a restart shows whether the homeserver knows it from its database.
		if s.rng.IntN(8) == 0 || strings.HasSuffix(p.point, "PUT send") && s.rng.IntN(2) == 0 {
			s.schedule = append(s.schedule, "homeserver restarted")
			s.relay.during(s.hs.Restart)
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
	s.Logf("%d kills, at: %v", kills, s.reached)
	s.Logf("%d reactions, %d comings and goings, %d messages said on IRC while the bridge was there or not", l.reactions, l.joins, l.said)
	s.begin("") // for the links
	s.entered()
	for _, wrong := range s.check(l, left) {
		s.Error(wrong)
	}
	s.stop()
	if kills < 300 {
		return
	}
	for _, point := range points {
		if s.reached[point] == 0 {
			t.Errorf("no process came to %q: has the failpoint another name now?", point)
		}
	}
}

// life is one process of the bridge: people talk on both sides until it is killed.
func (s *soak) life(l *load, p plan) {
	s.schedule = append(s.schedule, p.String())
	failpoint := ""
	if p.point != "" {
		failpoint = fmt.Sprintf("%s:%d", p.point, p.n)
	}
	s.begin(failpoint)
	kill := func() *time.Timer { return time.AfterFunc(p.wait, s.process.kill) }
	if p.point == "" && !p.late {
		defer kill().Stop()
	}
	for range steps / 2 {
		l.onMatrix()
	}
	if err := s.wire.wait(s.ctx, s.process.ended, "the bridge is in its channels", s.wire.inChannels(rooms)); !errors.Is(err, errOver) {
		s.ok(err)
	}
	if p.point == "" && p.late {
		defer kill().Stop()
	}
	for range steps / 2 {
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
	timer := time.AfterFunc(300*time.Millisecond, s.process.kill)
	s.dead()
	if timer.Stop() {
		s.reached[p.point]++
	}
}
