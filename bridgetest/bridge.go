package bridgetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/internal/ports"
	"github.com/trestle-bridge/trestle/store"
)

// Bridge is a bridge that runs in the test's own process against a [Homeserver], with its files in a directory of the
// test's.
type Bridge struct {
	Config *bridge.Config

	tb      testing.TB
	hs      *Homeserver
	network bridge.Network
	running *bridge.Bridge
	stop    context.CancelFunc
	ended   chan error
	logFile *os.File
}

// StartBridge generates a registration, tells the homeserver of it, and runs a bridge to network until the test ends.
// change may alter the configuration before the start; the defaults bridge nothing until a room is plumbed, have a media
// proxy, and use SQLite. The registration has rate_limited: true when the homeserver has [Limits]. What the bridge logs, at the level of the configuration, goes to the test's log, or to the
// configuration's file as JSON. It returns when the bridge is ready.
func StartBridge(tb testing.TB, hs *Homeserver, network bridge.Network, change ...func(*bridge.Config)) *Bridge {
	tb.Helper()
	dir := tb.TempDir()
	cfg := bridge.DefaultConfig(network.Info())
	cfg.Homeserver = bridge.HomeserverConfig{Address: hs.URL(), Domain: hs.Domain()}
	cfg.Appservice.Listen = hs.ownAddress(tb, "bridge")
	cfg.Appservice.Address = "http://" + cfg.Appservice.Listen
	cfg.Appservice.Registration = filepath.Join(dir, "registration.yaml")
	cfg.Database = "sqlite:" + filepath.Join(dir, "bridge.db")
	cfg.Media.Listen = hs.ownAddress(tb, "media")
	cfg.Media.PublicURL = "http://" + cfg.Media.Listen
	for _, f := range change {
		f(cfg)
	}
	opts := appservice.GenerateOptions{
		ID: cfg.Appservice.ID, URL: cfg.Appservice.Address, Domain: cfg.Homeserver.Domain,
		SenderLocalpart: cfg.Appservice.Bot, GhostPrefix: cfg.Appservice.Ghosts, AliasPrefix: cfg.Appservice.Ghosts,
	}
	if _, ok := network.(bridge.Directory); ok {
		opts.Protocols = []string{network.Info().ID}
	}
	registration, err := appservice.Generate(opts)
	if err == nil {
		registration.RateLimited = hs.opts.Limits != Limits{} // which hold for no other
		err = registration.Save(cfg.Appservice.Registration)
	}
	if err == nil {
		err = hs.AddAppService(cfg.Appservice.Registration)
	}
	if err != nil {
		tb.Fatalf("bridgetest: registering the bridge: %v", err)
	}
	b := &Bridge{Config: cfg, tb: tb, hs: hs, network: network}
	b.Start()
	tb.Cleanup(b.Stop)
	return b
}

// Start starts a bridge that was stopped, on the same database.
func (b *Bridge) Start() {
	b.tb.Helper()
	level, err := zerolog.ParseLevel(b.Config.Log.Level)
	if err != nil {
		b.tb.Fatalf("bridgetest: %v", err)
	}
	log := zerolog.New(testWriter{b.tb})
	if b.Config.Log.File != "" {
		if b.logFile, err = os.OpenFile(b.Config.Log.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			b.tb.Fatalf("bridgetest: opening the log: %v", err)
		}
		log = zerolog.New(zerolog.SyncWriter(b.logFile))
	}
	ctx, stop := context.WithCancel(context.Background())
	running, err := bridge.New(b.Config, b.network, log.Level(level))
	if err != nil {
		stop()
		b.tb.Fatalf("bridgetest: making the bridge: %v", err)
	}
	b.stop, b.ended, b.running = stop, make(chan error, 1), running
	go func() { b.ended <- running.Run(b.hs.WithNetwork(ctx)) }()
	select {
	case <-running.Ready():
	case err := <-b.ended:
		b.stop = nil
		stop()
		b.tb.Fatalf("bridgetest: the bridge did not start: %v", err)
	case <-time.After(time.Minute):
		b.tb.Fatalf("bridgetest: the bridge was not ready within a minute")
	}
}

// Stop stops the bridge as SIGTERM does, and fails the test if it does not end well.
func (b *Bridge) Stop() {
	b.tb.Helper()
	if b.stop == nil {
		return
	}
	b.stop()
	b.stop = nil
	if err := <-b.ended; err != nil {
		b.tb.Errorf("bridgetest: the bridge ended with %v", err)
	}
	if b.logFile != nil {
		if err := b.logFile.Close(); err != nil {
			b.tb.Errorf("bridgetest: closing the log: %v", err)
		}
		b.logFile = nil
	}
}

// GhostID is the user ID of the ghost of a remote user.
func (b *Bridge) GhostID(user bridge.RemoteUser) id.UserID {
	return id.NewUserID(b.Config.Appservice.Ghosts+appservice.EscapeLocalpart(user.ID), b.Config.Homeserver.Domain)
}

// DeadLetters waits until the running bridge has at least this many dead letters, and returns all.
func (b *Bridge) DeadLetters(ctx context.Context, atLeast int) ([]store.DeadLetter, error) {
	for {
		dead, err := b.running.DeadLetters(ctx, store.LetterQuery{Limit: 1000, Bodies: true})
		if err != nil || len(dead) >= atLeast {
			return dead, err
		}
		select {
		case <-ctx.Done():
			return dead, fmt.Errorf("bridgetest: there are %d dead letters, not %d: %w", len(dead), atLeast, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Ended gives the error with which the bridge ended by itself; [Bridge.Stop] then has nothing to do.
func (b *Bridge) Ended() <-chan error {
	b.stop = nil
	return b.ended
}

// BotID is the user ID of the bridge's bot.
func (b *Bridge) BotID() id.UserID {
	return id.NewUserID(b.Config.Appservice.Bot, b.Config.Homeserver.Domain)
}

// ownAddress keeps a port for the test, through any number of starts and stops.
func (hs *Homeserver) ownAddress(tb testing.TB, name string) string {
	tb.Helper()
	if hs.memory != nil {
		return name + inMemory
	}
	address, release, err := ports.Reserve()
	if err != nil {
		tb.Fatalf("bridgetest: %v", err)
	}
	tb.Cleanup(release)
	return address
}

type testWriter struct{ tb testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.tb.Logf("%s", p)
	return len(p), nil
}
