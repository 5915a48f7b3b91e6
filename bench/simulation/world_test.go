//go:build failpoints

package simulation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/failpoint"
	"github.com/trestle-bridge/trestle/internal/pipenet"
	"github.com/trestle-bridge/trestle/store"
)

// world is everything that one seed makes.
type world struct {
	*testing.T
	*choices
	character

	ctx   context.Context
	hs    *bridgetest.Homeserver
	net   *network
	alice *bridgetest.User
	rooms []id.RoomID
	wrote []*written
	loose map[string]bool // markers that may come out of order: the homeserver was restarted while they were under way
	calm  atomic.Bool     // nothing goes wrong any more

	cfg    *bridge.Config
	dir    string
	commit atomic.Pointer[process] // whose commits are counted

	failures int // of commits; the writer's

	logMu sync.Mutex
	log   bytes.Buffer
	trace []string
	wrong []string
}

// process is one life of the bridge.
type process struct {
	number         int
	host           *host
	bridge         *bridge.Bridge
	stop           context.CancelFunc
	ended          chan error
	commits        int           // so many are left until it dies; negative: it does not
	before         bool          // it dies before the commit, and not after it
	died           chan struct{} // closed then
	database, next string        // its own, and that of the one after its death
}

// note writes down what happens, in the bubble's time.
func (w *world) note(format string, args ...any) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	w.trace = append(w.trace, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// Write takes the bridge's log.
func (w *world) Write(p []byte) (int, error) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	return w.log.Write(p)
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("seed %d: %v", w.seed, err)
	}
}

// quickDir is a folder in memory, where there is one: what a loss of power does is not tried here.
func quickDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "simulation")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newWorld(t *testing.T, seed uint64, template string) *world {
	c := newChoices(seed)
	w := &world{T: t, choices: c, character: c.character(), ctx: t.Context(), dir: quickDir(t), loose: map[string]bool{}}
	w.net = newNetwork(c, w.character, w.note)
	w.hs = bridgetest.NewHomeserver(t, bridgetest.Options{InMemory: true, RestartSequence: true, RestartForgets: true, RetryUnit: time.Second})
	w.alice = w.hs.User("alice")
	w.cfg = bridge.DefaultConfig(w.net.Info())
	w.cfg.Homeserver = bridge.HomeserverConfig{Address: w.hs.URL(), Domain: w.hs.Domain()}
	w.cfg.Appservice.Listen = "bridge.memory.test:80"
	w.cfg.Appservice.Address = "http://" + w.cfg.Appservice.Listen
	w.cfg.Appservice.Registration = filepath.Join(w.dir, "registration.yaml")
	registration, err := appservice.Generate(appservice.GenerateOptions{
		ID: w.cfg.Appservice.ID, URL: w.cfg.Appservice.Address, Domain: w.hs.Domain(),
		SenderLocalpart: w.cfg.Appservice.Bot, GhostPrefix: w.cfg.Appservice.Ghosts,
	})
	w.ok(err)
	w.ok(registration.Save(w.cfg.Appservice.Registration))
	w.ok(w.hs.AddAppService(w.cfg.Appservice.Registration))
	for i := range w.character.rooms {
		room, err := w.alice.CreateRoom(w.ctx, bridgetest.RoomOptions{Preset: "public_chat", Invite: []id.UserID{w.bot()}})
		w.ok(err)
		name := fmt.Sprintf("channel%d", i)
		w.rooms = append(w.rooms, room)
		w.net.channels[name] = &channel{}
		w.cfg.Bridge.Plumb = append(w.cfg.Bridge.Plumb, bridge.Plumb{Room: string(room), Channel: name})
	}
	w.disturb(registration.ASToken)
	failpoint.Watch(w.passing)
	t.Cleanup(func() { failpoint.Watch(nil) })
	w.ok(copyFile(template, w.database(0)))
	return w
}

func (w *world) bot() id.UserID { return id.NewUserID(w.cfg.Appservice.Bot, w.hs.Domain()) }

func (w *world) database(number int) string {
	return filepath.Join(w.dir, fmt.Sprintf("bridge%d.db", number))
}

// begin starts a process on what the last one left.
func (w *world) begin(number int, database string, dies bool) *process {
	p := &process{number: number, ended: make(chan error, 1), died: make(chan struct{}), commits: -1, database: database, next: w.database(number + 1)}
	if dies {
		r := w.about("a crash")
		p.commits, p.before = 1+r.IntN(60), r.IntN(2) == 0
	}
	w.unsettle(database)
	w.note("process %d begins; it dies at commit %d (before: %v)", number, p.commits, p.before)
	ctx, stop := context.WithCancel(w.hs.WithNetwork(context.Background()))
	inner, _ := pipenet.From(ctx)
	p.host, p.stop = &host{Network: inner}, stop
	cfg := *w.cfg
	cfg.Database = "sqlite:" + database
	var err error
	p.bridge, err = bridge.New(&cfg, w.net, zerolog.New(w).Level(zerolog.WarnLevel))
	w.ok(err)
	w.commit.Store(p)
	go func() { p.ended <- p.bridge.Run(pipenet.With(ctx, p.host)) }()
	return p
}

// unsettle finds out what a process that begins may send again: what waits in the store that it begins with. The last process may have had the answer, and have
// ended before the commit of it.
func (w *world) unsettle(database string) {
	if len(w.net.settled) == 0 {
		return
	}
	db, err := store.Open(w.ctx, "sqlite:"+database, store.Options{Log: zerolog.Nop()})
	w.ok(err)
	waits := map[id.EventID]bool{}
	w.ok(db.Backlog(w.ctx, func(l store.LaneRefs) error {
		for _, ref := range l.Refs {
			el, err := db.Element(w.ctx, ref)
			if err != nil {
				return err
			}
			waits[id.EventID(el.Key)] = true
		}
		return nil
	}))
	w.ok(db.Close())
	w.net.change(func() {
		for _, a := range w.net.arrived {
			if waits[a.event] {
				delete(w.net.settled, a.marker)
			}
		}
	})
}

// end ends a process well, or what is left of one that died.
func (w *world) end(p *process) {
	p.stop()
	err := <-p.ended
	p.host.die()
	w.commit.Store(nil)
	w.note("process %d has ended: %v", p.number, err)
}

var errDisk = errors.New("the disk did not take it")

// passing is called at every failpoint, of which only commits matter here. They are the writer's: no other runs meanwhile.
func (w *world) passing(point string) error {
	p := w.commit.Load()
	if p == nil || w.calm.Load() {
		return nil
	}
	switch point {
	case "before commit":
		if p.commits > 0 {
			p.commits--
		}
		if p.commits == 0 && p.before {
			w.die(p)
		}
	case "fails commit":
		if p.commits != 0 && w.about("a commit").IntN(1000) < w.commits {
			w.note("a commit fails")
			w.failures++
			w.net.change(func() { clear(w.net.settled) })
			return errDisk
		}
	case "after commit":
		if p.commits == 0 && !p.before {
			w.die(p)
		}
	}
	return nil
}

// die ends a process as kill -9 does: nothing of what it does from now on is seen by anybody, and the next one finds what is
// durable now.
func (w *world) die(p *process) {
	p.commits = -1
	p.host.die()
	w.net.die()
	w.note("process %d dies", p.number)
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(p.database+suffix, p.next+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			panic(err)
		}
	}
	close(p.died)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
