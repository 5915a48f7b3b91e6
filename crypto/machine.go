//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// deviceKey names a device of the bridge.
type deviceKey struct {
	user   id.UserID
	device id.DeviceID
}

// account is what the device's rows are found by in mautrix's tables.
func (k deviceKey) account() string { return string(k.user) + "/" + string(k.device) }

// machine is the place of a device in memory: its locks, and mautrix's machine while that is loaded.
//
// Locks are taken before a job is given to the writer and in this order: the lock of the room ([Crypto.rooms]), olm. A job
// takes mu alone, which nobody holds while he waits for the writer.
type machine struct {
	c *Crypto
	deviceKey

	users int       // how many use it now; of Crypto.mu
	idle  time.Time // since when nobody does; of Crypto.mu

	// olm is for what moves the account or Olm sessions: to-device messages, sharing, uploads.
	olm chan struct{} // holds one while it is taken

	whole sync.Map // rooms whose key all have, as far as is known: true by [id.RoomID]

	mu     sync.Mutex
	loaded *loaded
}

// loaded is mautrix's machine with its memory. When memory and store may differ it is thrown away, and read anew.
type loaded struct {
	*crypto.OlmMachine
	store  *keyStore
	spoilt bool // an Olm session may have been changed by an attempt in vain, or too much is remembered; of the Olm lock
	// senders is of how many messages the sender's sessions were looked for; of the Olm lock.
	senders int
}

// use gives the machine of a device, which stays until release is called.
func (c *Crypto) use(key deviceKey) (m *machine, release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m = c.machines[key]
	if m == nil {
		m = &machine{c: c, deviceKey: key, olm: make(chan struct{}, 1)}
		c.machines[key] = m
	}
	m.users++
	return m, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if m.users--; m.users == 0 {
			m.idle = time.Now()
		}
	}
}

// useOf is use for the device that a user of the bridge has now, which is made if there is none.
func (c *Crypto) useOf(ctx context.Context, user id.UserID) (m *machine, release func(), err error) {
	device, err := c.as.Ghost(user).KeyDevice(ctx)
	if err != nil {
		return nil, nil, err
	}
	c.syncs.need(deviceKey{user, device})
	m, release = c.use(deviceKey{user, device})
	return m, release, nil
}

// unload forgets machines that nobody has used since then.
func (c *Crypto) unload(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, m := range c.machines {
		if m.users == 0 && m.idle.Before(since) {
			delete(c.machines, key)
		}
	}
}

func (m *machine) lockOlm(ctx context.Context) (unlock func(), err error) {
	select {
	case m.olm <- struct{}{}:
		return func() { <-m.olm }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *machine) lockRoom(ctx context.Context, room id.RoomID) (unlock func(), err error) {
	return m.c.rooms.Lock(ctx, m.account()+" "+string(room))
}

// load gives mautrix's machine, read from the store if it is not in memory: in a job from what the job sees. A device that
// has no account is [ErrNoMachine].
func (m *machine) load(ctx context.Context) (*loaded, error) { return m.loadOr(ctx, false) }

func (m *machine) loadOr(ctx context.Context, create bool) (*loaded, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loaded != nil {
		return m.loaded, nil
	}
	keys := newKeyStore(m)
	account, err := keys.GetAccount(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the keys of %s: %w", m.account(), pickleError(err))
	}
	if account == nil && !create {
		return nil, fmt.Errorf("load the keys of %s: %w", m.account(), ErrNoMachine)
	}
	log := zerolog.Nop() // it would log a line or more for each message, with what belongs to whom
	client := m.c.as.Ghost(m.user).Client(m.device)
	guarded := *client.Client
	guarded.Transport = guardedTransport{guarded.Transport, &m.c.log}
	client.Client = &guarded
	l := &loaded{OlmMachine: crypto.NewOlmMachine(client, &log, keys, stateStore{m.c.store}), store: keys}
	l.DisableDecryptKeyFetching = true
	l.DisableRatchetTracking = true
	l.DisableDeviceChangeKeyRotation = true // it would be of this account's sessions alone
	l.SetMegolmDecryptLock(func(ctx context.Context, _ id.SessionID, _ bool, run func(context.Context) error) error {
		return run(ctx) // the writer does one thing at a time
	})
	if err := l.Load(ctx); err != nil {
		return nil, fmt.Errorf("load the keys of %s: %w", m.account(), err)
	}
	signing, identity := l.GetAccount().Keys() // which keeps them: afterwards they are only read
	if own, err := keys.GetDevice(ctx, m.user, m.device); err != nil {
		return nil, fmt.Errorf("load the keys of %s: %w", m.account(), err)
	} else if own != nil && (own.SigningKey != signing || own.IdentityKey != identity) {
		return nil, fmt.Errorf("load the keys of %s: %w: restore the whole database, or give the user a new device", m.account(), ErrForeign)
	}
	l.SendKeysMinTrust = m.c.opts.Send.least()
	if err := m.c.loadIdentity(ctx, l); err != nil {
		return nil, fmt.Errorf("load the keys of %s: %w", m.account(), err)
	}
	m.loaded = l
	return l, nil
}

// discard forgets what is in memory.
func (m *machine) discard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loaded = nil
}

// olmJob runs a job that moves the account or Olm sessions. What it did to memory is forgotten when the job fails or is
// undone.
func (m *machine) olmJob(ctx context.Context, job func(ctx context.Context, tx *store.Tx, l *loaded) error) error {
	unlock, err := m.lockOlm(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return m.c.commit(ctx, func(ctx context.Context, tx *store.Tx) error {
		tx.OnRollback(m.discard)
		return m.c.survive(func() error {
			l, err := m.load(ctx)
			if err != nil {
				return err
			}
			return job(ctx, tx, l)
		})
	})
}

// olmWork runs what moves the account or Olm sessions and needs the network; each of its writes is a job of its own. When
// one fails, nothing more leaves, the error is returned whatever mautrix makes of it, and memory is forgotten.
func (m *machine) olmWork(ctx context.Context, work func(ctx context.Context, l *loaded) error) error {
	unlock, err := m.lockOlm(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return m.olmWorkLocked(ctx, false, work)
}

func (m *machine) olmWorkLocked(ctx context.Context, create bool, work func(ctx context.Context, l *loaded) error) error {
	failed, err := m.work(ctx, create, work)
	if failed {
		m.discard()
	}
	return err
}

// deviceWork is olmWork for what others' devices are, and nothing else: that is in the store alone, and which of two answers holds is decided there, for each
// machine asks by itself ([keyStore.PutDevices]). So it takes no lock, and what comes meanwhile is taken in while the homeserver waits for another. Memory is not
// forgotten, since who has the Olm lock may be changing it.
func (m *machine) deviceWork(ctx context.Context, work func(ctx context.Context, l *loaded) error) error {
	_, err := m.work(ctx, false, work)
	return err
}

func (m *machine) work(ctx context.Context, create bool, work func(ctx context.Context, l *loaded) error) (failed bool, err error) {
	op := &operation{began: m.c.store.DeviceMarks()}
	ctx = context.WithValue(ctx, operationKey{}, op)
	ctx, cancel := context.WithCancel(ctx) // ends what mautrix leaves open in the store
	defer cancel()
	l, err := m.loadOr(ctx, create)
	if err != nil {
		return false, err
	}
	op.settle = func(ctx context.Context) error { return l.store.commit(ctx, nil) }
	if err = m.c.survive(func() error { return work(ctx, l) }); errors.Is(err, errPanic) {
		m.discard()
	}
	_ = op.settle(ctx) // its error is the operation's
	if broken := op.failed(); broken != nil {
		return true, broken
	}
	return false, err
}

// operation is work that may write; it keeps the first error of a write, because mautrix goes on after some.
type operation struct {
	settle func(ctx context.Context) error // commits what is staged
	began  uint64                          // what was asked of the homeserver was asked after this [store.Store.DeviceMarks]
	giving *giving                         // the room key that is on its way to others
	to     addressees

	mu     sync.Mutex
	err    error
	staged []func(ctx context.Context) error // writes that wait; see [keyStore.stage]
}

type operationKey struct{}

func operationOf(ctx context.Context) *operation {
	op, _ := ctx.Value(operationKey{}).(*operation)
	return op
}

func (op *operation) fail(err error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.err == nil {
		op.err = err
	}
}

func (op *operation) stage(write func(ctx context.Context) error) (staged int, err error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	if op.err == nil {
		op.staged = append(op.staged, write)
	}
	return len(op.staged), op.err
}

// take gives the writes that wait, which are now the caller's.
func (op *operation) take() (staged []func(ctx context.Context) error, err error) {
	op.mu.Lock()
	defer op.mu.Unlock()
	staged, op.staged = op.staged, nil
	return staged, op.err
}

func (op *operation) failed() error {
	op.mu.Lock()
	defer op.mu.Unlock()
	return op.err
}

// guardedTransport lets nothing leave from within a job, which would wait for the network, nor before everything is written that was to
// be, or after that has failed.
type guardedTransport struct {
	base http.RoundTripper
	log  *zerolog.Logger
}

func (t guardedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if store.TxOf(r.Context()) != nil {
		return nil, fmt.Errorf("%s %s in the middle of a commit", r.Method, r.URL.Path)
	}
	if op := operationOf(r.Context()); op != nil {
		if err := op.settle(r.Context()); err != nil {
			return nil, err
		}
	}
	switch {
	case isClaim(r):
		return claimThrough(t.base, t.log, r)
	case isQuery(r):
		return queryThrough(t.base, t.log, r)
	}
	return sendInBatches(t.base, r)
}
