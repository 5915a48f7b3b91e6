//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lib/pq"
	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/crypto"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/internal/keylock"
	"github.com/trestle-bridge/trestle/store"
)

// mautrix asks for lists of users with an array where it can; this is how.
func init() { crypto.PostgresArrayWrapper = pq.Array }

// Crypto encrypts and decrypts for all devices of the bridge. Its methods may be called from any goroutine.
type Crypto struct {
	store *store.Store
	epoch store.Epoch
	as    *appservice.AppService
	log   zerolog.Logger
	opts  Options
	keys  *dbutil.Database // mautrix's tables
	rooms keylock.Map      // by machine and room: one encrypts or shares at a time
	// asking, by user: one judges at a time who may have to ask for the user's devices. It is taken before a machine's Olm lock.
	asking keylock.Map
	syncs  *syncer

	mu       sync.Mutex
	machines map[deviceKey]*machine

	prepared sync.Map // deviceKey: what Prepare has seen to in this process
	claims   claims
	mends    *mends
	requests seldom // keys and devices that were asked for
	// unanswered are questions about devices that failed, as requests has them; whose bounds those for which to-device messages wait.
	unanswered seldom
	whose      pace
	mutes      mutes
	witness    witness
	returns    returns
	shorts     sync.Map // by machine and room, as rooms: when another key is tried for which devices
	silent     sync.Map // by [id.UserID]: a silence
	early      seldom   // rooms that have asked a silent server before its time
	keyless    seldom   // devices, by signing key, that had no one-time key
	// They are usualShortAgain and usualSilentAgain, but in tests.
	shortAgain, silentAgain time.Duration

	// They are usualUnread, usualBegun, usualSenders and usualGone, but in tests.
	mostUnread, mostBegun, mostSenders, mostGone int

	quit    chan struct{}
	closing sync.Once
	running sync.WaitGroup
}

// New opens what the store holds of keys. A store whose keys were written with another pickle key is [ErrPickleKey].
func New(ctx context.Context, o Options) (*Crypto, error) {
	if len(o.PickleKey) == 0 {
		return nil, errors.New("set up encryption: the pickle key is empty")
	}
	keys, err := o.Store.Foreign()
	if err != nil {
		return nil, fmt.Errorf("set up encryption: %w", err)
	}
	c := &Crypto{
		store: o.Store, epoch: o.Store.Epoch(), as: o.AS, log: o.Log, opts: o, keys: keys, mends: newMends(), whose: pace{atOnce: whoseAtOnce, every: whoseEvery},
		machines: map[deviceKey]*machine{}, shortAgain: usualShortAgain, silentAgain: usualSilentAgain, mostUnread: usualUnread, mostBegun: usualBegun, mostSenders: usualSenders, mostGone: usualGone,
		quit: make(chan struct{}),
	}
	if err := c.tryPickleKey(ctx); err != nil {
		return nil, fmt.Errorf("set up encryption: %w", err)
	}
	if err := c.rememberClaims(ctx); err != nil {
		return nil, fmt.Errorf("set up encryption: %w", err)
	}
	c.returns.seen = c.as.HomeserverReturns()
	c.syncs = newSyncer(c)
	if err := c.keepPolicy(ctx); err != nil {
		return nil, fmt.Errorf("set up encryption: %w", err)
	}
	// What the homeserver told of devices while the bridge was away is lost.
	if err := c.doubtDevices(ctx); err != nil {
		return nil, fmt.Errorf("set up encryption: %w", err)
	}
	c.running.Go(func() { c.unloadIdle(unloadAfter) })
	c.running.Go(func() { c.doubtDevicesNowAndThen(doubtDevicesEvery) })
	c.running.Go(func() { c.tellWordNowAndThen(witnessEvery) })
	c.running.Go(c.watchHomeserver)
	return c, nil
}

// Close ends what New began. Whoever uses the machines must have ended before.
func (c *Crypto) Close() error {
	c.syncs.close()
	c.closing.Do(func() { close(c.quit) })
	c.running.Wait()
	return nil
}

// unloadAfter is how long a machine stays in memory when nobody uses it.
const unloadAfter = 5 * time.Minute

func (c *Crypto) unloadIdle(after time.Duration) {
	tick := time.NewTicker(after / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.unload(time.Now().Add(-after))
		case <-c.quit:
			return
		}
	}
}

// commit runs a job of the store.
func (c *Crypto) commit(ctx context.Context, job func(ctx context.Context, tx *store.Tx) error) error {
	return c.store.Commit(ctx, c.epoch, func(tx *store.Tx) error { return job(tx.Context(ctx), tx) })
}
