package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/internal/keylock"
	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

// Bridge is one running bridge: one network, one appservice, one store. [Main] makes one from the command line; a program
// or a test that embeds a bridge makes it with [New].
type Bridge struct {
	cfg     *Config
	network Network
	info    Info
	command string
	log     zerolog.Logger

	store      *store.Store
	as         *appservice.AppService
	guard      *crypto.Guard
	modes      modes
	cipher     cipher // nil where no room has a mode but off
	held       *held
	names      *names
	portals    *portals
	outbox     *lanes.Lanes[int64] // what is said and done in rooms
	movers     *lanes.Lanes[int64] // ghosts that come and go
	comings    *comings
	recording  recording
	fresh      freshRows
	careful    carefulOutbox
	unanswered *unanswered
	signer     *proxy.Signer           // nil without a media proxy
	sessions   atomic.Pointer[Session] // the relay's
	logins     logins
	loginMu    sync.Mutex // who makes or ends one

	typing   chan typingNotice
	typersMu sync.Mutex
	typers   map[id.RoomID][]id.UserID

	toldMu sync.Mutex
	told   map[string]time.Time

	retried             retried
	toNetwork, toMatrix *underWay

	making   keylock.Map // by channel
	unmadeMu sync.Mutex
	unmade   map[string]*portal // by channel: those whose room may have been made, which the store does not know

	tasksMu sync.Mutex
	tasks   map[string]bool // what runs once at a time

	metrics   bridgeMetrics
	writeTest trial
	now       func() time.Time          // of health
	offline   atomic.Pointer[time.Time] // since when the session is known to be; see offline.go
	draining  atomic.Bool

	started   time.Time
	abandoned map[id.RoomID]string // rooms that the configuration no longer connects, and to which channel it did

	running    context.Context // ends when the bridge stops
	goMu       sync.Mutex      // no goroutine starts once stopped is set
	stopped    bool
	goroutines sync.WaitGroup
	ready      chan struct{}
	failed     chan error // what ends a running bridge; the first one counts
}

const (
	outboxWorkers = 16
	// outboxMaxAge is how long something that cannot be done on Matrix is tried before it becomes a dead letter: a
	// homeserver may be away for days.
	outboxMaxAge = 7 * 24 * time.Hour
	// drainTimeout is for each step of stopping: what goes to Matrix, what goes to the network, the network's goodbye,
	// requests under way.
	drainTimeout = 6 * time.Second
)

// New makes a bridge. Nothing is opened or started before [Bridge.Run].
func New(cfg *Config, network Network, log zerolog.Logger) (*Bridge, error) {
	info := network.Info()
	if info.ID == "" || strings.Trim(info.ID, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return nil, fmt.Errorf("the network's Info.ID is %q: write lower-case letters and digits", info.ID)
	}
	b := &Bridge{
		cfg: cfg, network: network, info: info, log: log, command: cfg.Bridge.Command,
		portals: newPortals(), held: newHeld(), unanswered: newUnanswered(), toNetwork: newUnderWay(), toMatrix: newUnderWay(), typing: make(chan typingNotice, typingQueue), typers: map[id.RoomID][]id.UserID{},
		logins: logins{of: map[id.UserID]*ownLogin{}},
		told:   map[string]time.Time{}, tasks: map[string]bool{}, unmade: map[string]*portal{}, abandoned: map[id.RoomID]string{},
		metrics: newBridgeMetrics(), writeTest: trial{patience: writeTimeout}, now: time.Now,
		started: time.Now(), ready: make(chan struct{}), failed: make(chan error, 1),
	}
	if b.command == "" {
		b.command = info.Command
	}
	return b, nil
}

// Ready is closed once the bridge takes transactions and its session is open.
func (b *Bridge) Ready() <-chan struct{} { return b.ready }

// Run runs the bridge until ctx ends, then drains: no new transaction is taken, what is under way in either direction is
// finished (each for at most 6 s; the rest waits in the store), and everything is closed. It returns nil after such a stop, and an error when the
// bridge cannot start or one of its listeners fails. A Bridge runs once.
func (b *Bridge) Run(ctx context.Context) (err error) {
	// Work goes on for a while after ctx has ended, so that what is under way can be finished.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	b.running = running

	b.store, err = store.Open(ctx, b.cfg.Database, store.Options{Log: b.log, Retention: store.Retention{
		DeadLetters: b.cfg.Retention.DeadLetters, Messages: b.cfg.Retention.Messages,
		Remote: b.cfg.Retention.Remote, Media: b.cfg.Retention.Media,
	}})
	if err != nil {
		return err
	}
	defer func() {
		if closing := b.store.Close(); err == nil {
			err = closing
		}
	}()
	defer func() {
		if b.cipher != nil {
			err = errors.Join(err, b.cipher.Close())
		}
	}()
	listeners, err := b.listen(ctx)
	if err != nil {
		return err
	}
	defer listeners.close()
	if err := b.build(ctx, listeners); err != nil {
		return err
	}
	listeners.serveWatch(b)
	if err := b.start(ctx, listeners); err != nil {
		drained := b.drain(listeners)
		b.end(stop)
		if ctx.Err() != nil {
			return nil // stopped before it was ready: that is no failure
		}
		return errors.Join(err, drained)
	}
	close(b.ready)
	b.log.Info().Str("network", b.info.Name).Int("portals", len(b.portals.all())).Msg("Ready")

	select {
	case <-ctx.Done():
		b.log.Info().Msg("Stopping: finishing what is under way")
	case err = <-b.failed:
	case <-b.as.Lost():
		err = b.as.Ready()
	}
	draining := b.drain(listeners)
	b.end(stop)
	if draining != nil {
		b.log.Warn().Err(draining).Msg("Not everything was finished in time; it is in the store and goes on at the next start")
	}
	return err
}

// build makes the parts; nothing runs yet.
func (b *Bridge) build(ctx context.Context, l *listeners) (err error) {
	registration, err := appservice.LoadRegistration(b.cfg.Appservice.Registration)
	if err != nil {
		return err
	}
	b.as, err = appservice.New(appservice.Config{
		Registration: registration, HomeserverURL: b.cfg.Homeserver.Address, ServerName: b.cfg.Homeserver.Domain,
		Store: b.store, Handler: b, Log: b.log, MaxBody: int64(b.cfg.Appservice.MaxBody),
		BacklogLimit: b.cfg.Appservice.BacklogLimit, Workers: b.cfg.Appservice.Workers, HoldFor: b.cfg.Appservice.Hold,
		AllowQueryToken: b.cfg.Appservice.AllowQuery, LegacyPaths: b.cfg.Appservice.LegacyPaths,
		DeviceMode: b.deviceMode(), MaxAge: b.cfg.Appservice.MaxAge, Metrics: l.metrics, HTTPClient: homeserverClient(ctx),
	})
	if err != nil {
		return err
	}
	b.guard = crypto.NewGuard(b.store, b.as, func(ctx context.Context, room id.RoomID) (*appservice.Intent, error) {
		speaker, err := b.speaker(ctx, room)
		return b.as.Ghost(speaker), err
	})
	if err := b.openCipher(ctx); err != nil {
		return err
	}
	b.names = newNames(b.as.Bot())
	b.outbox = lanes.NewBatch(lanes.Numbers, outboxWorkers, 1, b.say)
	b.movers = lanes.NewBatch(lanes.Numbers, comingWorkers, 1, b.move)
	b.comings = newComings(b.outbox, b.movers)
	b.registerMetrics(l.metrics)
	return b.buildProxy(ctx, registration.ASToken, l)
}

// deviceMode says how ghosts get devices. Where only encrypted rooms would ask for one, and none is read, none is needed.
func (b *Bridge) deviceMode() string {
	if b.cfg.Appservice.GhostDevices == "encrypted" && !b.cfg.encrypts() {
		return appservice.DeviceNone
	}
	return b.cfg.Appservice.DeviceMode
}

// start brings the parts up in the order in which they need each other: the bot, the portals, the network, the rows that
// wait, and last the transactions.
func (b *Bridge) start(ctx context.Context, l *listeners) error {
	if err := b.prepareBot(ctx); err != nil {
		return err
	}
	if err := b.noteModes(ctx); err != nil {
		return fmt.Errorf("writing how encrypted rooms are treated: %w", err)
	}
	if err := b.loadPortals(ctx); err != nil {
		return err
	}
	// What waits comes before what the session is about to deliver.
	waiting := map[string]struct{}{}
	found := b.comings.begin()
	if err := b.store.OutgoingBacklog(ctx, func(lane string, row int64) error {
		found(lane, row)
		lane = laneOf(lane)
		if _, before := waiting[lane]; !before {
			b.unanswered.head(row) // a room's first one, or a ghost's, which does not ask
		}
		waiting[lane] = struct{}{}
		return nil
	}); err != nil {
		return fmt.Errorf("reading what waits in the outbox: %w", err)
	}
	logins, err := b.storedLogins(ctx) // before the first session delivers what they may have said
	if err != nil {
		return err
	}
	session, err := b.network.Open(b.running, &Login{ID: RelayLogin}, &sink{b: b})
	if err != nil {
		return fmt.Errorf("opening the session on %s: %w", b.info.Name, err)
	}
	b.sessions.Store(&session)
	b.openLogins(logins)
	if err := b.as.Start(b.running); err != nil {
		return err
	}
	b.startOutbox(waiting)
	l.serve(b)
	b.goroutine(func() { b.sendTyping(b.running) })
	b.goroutine(func() { b.attendRequests(b.running) })
	b.goroutine(func() { b.buryOverdue(b.running) })
	b.enterStored(b.running)
	b.plumbConfigured(b.running)
	b.makeUnmade(b.running)
	return nil
}

// prepareBot registers the bot before anything else. A homeserver that is not there yet is waited for: after a power cut
// both start together.
func (b *Bridge) prepareBot(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		err := crypto.PrepareBot(ctx, b.as.Bot())
		if err == nil && b.cfg.Appservice.BotDisplayName != "" {
			err = b.as.Bot().SetDisplayName(ctx, b.cfg.Appservice.BotDisplayName)
		}
		if err == nil {
			err = b.prepareCipher(ctx)
		}
		if err == nil || appservice.IsPermanent(err) || isRefusal(err) || errors.Is(err, crypto.ErrOtherIdentity) {
			return err
		}
		wait := retryDelay(attempt)
		b.log.Warn().Err(err).Stringer("wait", wait).Msg("The homeserver is not ready; trying again. The subcommand check says what is wrong")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// fail ends a running bridge with an error.
func (b *Bridge) fail(err error) {
	select {
	case b.failed <- err:
	default:
	}
}

// failIfLost ends the bridge after an error that stays for as long as this process lives.
func (b *Bridge) failIfLost(err error) {
	if errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrUnknownOutcome) {
		b.fail(fmt.Errorf("the store is lost for this process: %w", err))
	}
}

// drain stops in the reverse order. What cannot be finished in time stays in the store.
func (b *Bridge) drain(l *listeners) error {
	b.draining.Store(true)
	steps := []func(ctx context.Context) error{}
	if b.as != nil {
		steps = append(steps, b.drainOutbox, b.as.Stop)
	}
	if b.sessions.Load() != nil {
		steps = append(steps, b.closeLogins, b.session().Close)
	}
	steps = append(steps, l.shutdown)
	var errs []error
	for _, step := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		errs = append(errs, step(ctx))
		cancel()
	}
	return errors.Join(errs...)
}

// drainOutbox ends the work of both kinds of lanes, within the same time.
func (b *Bridge) drainOutbox(ctx context.Context) error {
	said := make(chan error, 1)
	go func() { said <- b.outbox.Drain(ctx) }()
	return errors.Join(b.movers.Drain(ctx), <-said)
}

// session is the relay's. It is there before the first event is.
func (b *Bridge) session() Session { return *b.sessions.Load() }

func (b *Bridge) guarantee() Guarantee {
	if g, ok := b.session().(Guarantor); ok {
		return g.Guarantee()
	}
	return AtMostOnce
}

// goroutine runs f, which must end when b.running does. It is false, and f is not run, once the bridge has stopped.
func (b *Bridge) goroutine(f func()) bool {
	b.goMu.Lock()
	defer b.goMu.Unlock()
	if b.stopped {
		return false
	}
	b.goroutines.Go(f)
	return true
}

// end stops and waits for every goroutine of the bridge's own, and for the outbox's workers.
func (b *Bridge) end(stop context.CancelFunc) {
	b.goMu.Lock()
	b.stopped = true
	b.goMu.Unlock()
	stop()
	if b.outbox != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		defer cancel()
		if err := b.drainOutbox(ctx); err != nil {
			b.log.Error().Err(err).Msg("Outbox workers do not end")
		}
	}
	ended := make(chan struct{})
	go func() {
		b.goroutines.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(drainTimeout):
		// What they wait for is a commit, of which a database that is away has not said what became: closing ends that.
		_ = b.store.Close() // Run says what it has to say
		<-ended
	}
}

// retryDelay grows from one second to five minutes.
func retryDelay(attempt int) time.Duration {
	return min(time.Second<<min(attempt, 9), 5*time.Minute)
}

func isEncrypted(err error) bool { return errors.Is(err, crypto.ErrEncrypted) }
