package appservice

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/keylock"
	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

var (
	errNotStarted = errors.New("the appservice has not started")
	errStopped    = errors.New("the appservice has stopped")
)

// AppService is one appservice: what the homeserver sends comes in through ServeHTTP, and what the bridge does on Matrix
// goes out through its intents. Its methods may be called from any goroutine.
type AppService struct {
	cfg        Config
	log        zerolog.Logger
	store      *store.Store
	epoch      store.Epoch
	router     http.Handler
	hsTokenSum [sha256.Size]byte
	lanes      *lanes.Lanes[store.Ref]
	heads      heads
	shared     *sharedCommits
	abreast    *abreast
	replay     *replay
	later      laterLanes
	ephemeral  *ephemerals
	questions  *questions
	pings      pings
	metrics    *metrics

	homeserver *url.URL
	http       *http.Client
	syncs      *http.Client // of SyncKeys
	carried    carried
	gaps       gaps
	absence    absence
	namespaces []*regexp.Regexp // of users
	aliases    []*regexp.Regexp
	botID      id.UserID
	devices    deviceSupport
	uploads    uploadLimit
	fallbacks  fallbacks
	intents    intents
	lapses     *lapses
	readings   readings
	locks      keylock.Map // by user, and by user and room

	started   atomic.Bool
	quit      chan struct{} // closed by Stop
	stopOnce  sync.Once
	patience  time.Duration   // stopPatience
	runCtx    context.Context // of the handlers
	runCancel context.CancelFunc
	commitCtx context.Context // of commits: outlives runCtx, so that what was done is also written
	commitEnd context.CancelFunc
	routines  sync.WaitGroup
	fatal     atomic.Pointer[error]
	lost      chan struct{} // closed with fatal
}

// New makes an appservice. It neither reads the store nor talks to the homeserver until [AppService.Start]; ServeHTTP
// may be served before that, and then holds transactions back. The error names everything that is wrong with cfg.
func New(cfg Config) (*AppService, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("set up the appservice: %w", err)
	}
	as := &AppService{
		cfg:        cfg,
		log:        cfg.Log,
		store:      cfg.Store,
		epoch:      cfg.Store.Epoch(),
		hsTokenSum: sha256.Sum256([]byte(cfg.Registration.HSToken)),
		questions:  newQuestions(),
		botID:      id.UserID("@" + cfg.Registration.SenderLocalpart + ":" + cfg.ServerName),
		devices:    newDeviceSupport(),
		intents:    intents{all: map[id.UserID]weak.Pointer[Intent]{}, recent: map[id.UserID]*Intent{}},
		quit:       make(chan struct{}),
		patience:   stopPatience,
		lost:       make(chan struct{}),
	}
	as.lapses = newLapses(cfg.ServerName, as.reach)
	as.absence.returned = func(last time.Time) { as.lapses.add(last.Add(-lapseMargin)) }
	if cfg.Registration.HSToken == "" || cfg.Registration.ASToken == "" {
		return nil, errors.New("set up the appservice: the registration has no tokens")
	}
	as.homeserver, _ = url.Parse(strings.TrimRight(cfg.HomeserverURL, "/"))
	for _, ns := range cfg.Registration.Namespaces.Users {
		if !ns.Exclusive {
			continue // users whom others may be, too: the bridge wants to hear of them, but they are not its ghosts
		}
		re, err := compileNamespace(ns)
		if err != nil {
			return nil, fmt.Errorf("set up the appservice: namespace %q: %w", ns.Regex, err)
		}
		as.namespaces = append(as.namespaces, re)
	}
	for _, ns := range cfg.Registration.Namespaces.Aliases {
		re, err := compileNamespace(ns)
		if err != nil {
			return nil, fmt.Errorf("set up the appservice: namespace %q: %w", ns.Regex, err)
		}
		as.aliases = append(as.aliases, re)
	}
	carrier := &transport{
		log:      as.log,
		limits:   newLimits(as.botID, as.quit, func(c class, outcome string) { as.metrics.limit(c, outcome) }),
		troubles: newTroubles(as.log, func(reason string) { as.metrics.refusal(reason) }),
		secrets:  []string{cfg.Registration.ASToken, cfg.Registration.HSToken},
		absence:  &as.absence,
	}
	as.http, as.syncs = newHTTPClient(cfg.HTTPClient, carrier), newSyncClient(cfg.HTTPClient, carrier)
	as.shared, as.replay = newSharedCommits(as), newReplay(as)
	as.abreast = newAbreast()
	as.lanes = lanes.NewBatch(packedRefs, cfg.Workers, batchSize, as.work)
	as.ephemeral = newEphemerals(cfg.Handler.HandleEphemeral, as.isOwn, as.log, func(outcome string) { as.metrics.ephemeral(outcome) })
	if as.metrics, err = newMetrics(cfg.Metrics, as.lanes.Len, as.lapses); err != nil {
		return nil, fmt.Errorf("set up the appservice: %w", err)
	}
	as.runCtx, as.runCancel = context.WithCancel(context.Background())
	as.commitCtx, as.commitEnd = context.WithCancel(context.Background())
	as.router = as.newRouter()
	return as, nil
}

// Start takes up what an earlier process left in the store and lets the handlers run. It returns before the homeserver
// was reached: registering the bot and the ping go on in the background, and are repeated until they succeed. ctx bounds
// only the reading of the store. Start is called once.
func (as *AppService) Start(ctx context.Context) error {
	if err := as.running(); !errors.Is(err, errNotStarted) {
		return errors.New("start the appservice: it was started before")
	}
	events, err := as.takeUp(ctx)
	if err != nil {
		return fmt.Errorf("start the appservice: %w", err)
	}
	if events > 0 {
		as.log.Info().Int("events", events).Msg("Events of an earlier run are taken up")
	}
	if s, err := as.readSupport(ctx); err == nil { // else whoever needs a device says so
		as.gaps.from(s.Software)
	}
	if err := as.startLapses(ctx); err != nil {
		return fmt.Errorf("start the appservice: %w", err)
	}
	as.lanes.Start(as.runCtx)
	as.routines.Go(func() { as.ephemeral.read(as.runCtx) })
	as.routines.Go(func() { as.ephemeral.call(as.runCtx) })
	as.routines.Go(func() { as.greet(as.runCtx) })
	as.routines.Go(func() { as.replay.prove(as.runCtx) })
	as.started.Store(true)
	return nil
}

// takeUp gives the lanes what an earlier process left, and writes down how that one ended.
func (as *AppService) takeUp(ctx context.Context) (events int, err error) {
	if err := as.replay.load(ctx); err != nil {
		return 0, fmt.Errorf("read how the last process ended: %w", err)
	}
	careful := as.replay.isCareful()
	var crashed []store.LaneRefs
	err = as.store.Backlog(ctx, func(r store.LaneRefs) error {
		if !as.replay.knows(r.Lane) {
			h, ended := as.replay.head(r)
			if ended {
				crashed = append(crashed, r)
			}
			as.heads.set(r.Lane, h)
		}
		as.replay.wait(r.Lane, len(r.Refs))
		if events += len(r.Refs); !careful {
			as.lanes.Add(r.Lane, r.Refs...)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read the backlog: %w", err)
	}
	if careful {
		as.log.Warn().Int("starts", as.replay.last.Bad).Msg("The last starts did not end well: what waits is tried with care, one lane at a time")
		as.lanes.Limit(1)
		for _, suspicious := range []bool{true, false} {
			err = as.store.Backlog(ctx, func(r store.LaneRefs) error {
				if as.replay.suspicious(r.Lane) == suspicious {
					as.lanes.Add(r.Lane, r.Refs...)
				}
				return nil
			})
			if err != nil {
				return 0, fmt.Errorf("read the backlog: %w", err)
			}
		}
	}
	return events, as.countCrashes(ctx, crashed, as.replay.begin())
}

// stopPatience is how long handlers may go on after their context has ended.
const stopPatience = 5 * time.Second

// Stop refuses further transactions, takes up no further event, and waits for the handlers that run. When ctx ends their
// context is cancelled; what they had begun is found at the next start. Stop ends 5 s after ctx at the latest, with an
// error when a handler is still running then. The store may be closed after Stop.
func (as *AppService) Stop(ctx context.Context) error {
	as.stopOnce.Do(func() { close(as.quit) })
	err := as.lanes.Drain(ctx)
	as.runCancel()
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), as.patience)
	defer cancel()
	if err != nil {
		err = as.lanes.Drain(patience)
	}
	if as.started.Load() && as.fatalError() == nil {
		_ = within(patience, func() error { as.replay.strikeOut(as.commitCtx); return nil })
	}
	as.commitEnd()
	ended := make(chan struct{})
	go func() {
		as.questions.close()
		as.routines.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-patience.Done():
		err = patience.Err()
	}
	as.http.CloseIdleConnections()
	as.syncs.CloseIdleConnections()
	if err != nil {
		return fmt.Errorf("stop the appservice: handlers are still running: %w", err)
	}
	return nil
}

// running says whether transactions can be taken in.
func (as *AppService) running() error {
	select {
	case <-as.quit:
		return errStopped
	default:
	}
	if err := as.fatalError(); err != nil {
		return err
	}
	if !as.started.Load() {
		return errNotStarted
	}
	return nil
}

// Backlog is how many events wait for their handler or are under way, and how many may before transactions are held back.
func (as *AppService) Backlog() (waiting, limit int) {
	waiting, _ = as.lanes.Len()
	return waiting, as.cfg.BacklogLimit
}

// Ready says whether the appservice works: it was started, the store takes writes, and the backlog is below its limit.
func (as *AppService) Ready() error {
	if err := as.running(); err != nil {
		return err
	}
	if waiting, limit := as.Backlog(); waiting >= limit {
		return fmt.Errorf("%w: %d events wait", errBacklog, waiting)
	}
	return nil
}

func (as *AppService) setFatal(err error) {
	if as.fatal.CompareAndSwap(nil, &err) {
		close(as.lost)
		as.log.Error().Err(err).Msg("The store is lost for this process; it handles nothing more and must be started again")
	}
}

// Lost is closed when the store is lost for this process, because another one has taken it over or the outcome of a commit
// cannot be learnt: nothing is handled any more, and the process must be started again. [AppService.Ready] says why.
func (as *AppService) Lost() <-chan struct{} { return as.lost }

func (as *AppService) fatalError() error {
	if err := as.fatal.Load(); err != nil {
		return *err
	}
	return nil
}

// IsGhost says whether a user is in the bridge's namespace, and not the bot.
func (as *AppService) IsGhost(user id.UserID) bool {
	return user != as.botID && as.isOwn(user)
}

func (as *AppService) isOwn(user id.UserID) bool {
	if user == as.botID {
		return true
	}
	if !strings.HasSuffix(string(user), ":"+as.cfg.ServerName) {
		return false
	}
	for _, ns := range as.namespaces {
		if ns.MatchString(string(user)) {
			return true
		}
	}
	return false
}
