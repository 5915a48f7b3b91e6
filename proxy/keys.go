package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

const (
	secretSize = 32 // bytes, made by the program; given keys have at least as many

	// settle is how old a new key is before it signs. By then every process has read it: a server reads the ring every watchEvery.
	settle = 30 * time.Second

	// ObeyedWithin is how long it takes at most until every server that reads a database obeys what was done there: a key that was retired, a link that was revoked.
	ObeyedWithin = time.Second

	// staleAfter is how old a server's view of the ring may be when it decides that a key still lives.
	staleAfter = ObeyedWithin
)

// Links is where links and keys are kept: a *store.Store, or beside the process that holds it a *store.Visitor.
type Links interface {
	MediaKeys(ctx context.Context) ([]store.MediaKey, error)
	Media(ctx context.Context, id int64) (*store.Media, error)
	MediaPage(ctx context.Context, record int64) (*store.MediaPage, error)
	MediaLinks(ctx context.Context, sc store.MediaScope, after int64, limit int) ([]store.Media, error)
	MediaRevocations(ctx context.Context, after int64, since time.Time) ([]store.MediaRevocation, error)
	LinkRevoked(ctx context.Context, m *store.Media) (bool, error)
	ChangeMedia(ctx context.Context, job func(tx store.MediaTx) error) error
}

var (
	_ Links = (*store.Store)(nil)
	_ Links = (*store.Visitor)(nil)
)

// KeyRing holds the keys of media links: one signs, all that are not retired verify. The secrets are random and are kept in the store;
// they are derived from nothing.
type KeyRing struct {
	source Links // nil: the keys are given
	now    func() time.Time

	mu   sync.Mutex // held while reading from or changing the source
	keys atomic.Pointer[keySet]

	next atomic.Pointer[chan struct{}] // closed at the next reading
}

// keySet is one reading of the ring; it is not changed.
type keySet struct {
	read    time.Time
	secrets map[uint8][]byte
	created map[uint8]time.Time
}

// OpenKeyRing reads the ring from the store and makes the first key when there is none. A nil now is time.Now.
func OpenKeyRing(ctx context.Context, source Links, now func() time.Time) (*KeyRing, error) {
	if now == nil {
		now = time.Now
	}
	r := &KeyRing{source: source, now: now}
	if err := r.Reload(ctx); err != nil {
		return nil, err
	}
	if len(r.keys.Load().secrets) > 0 {
		return r, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// The store takes one first key; whoever comes second is told that it is taken. It may be told so before the first one's commit is through, so it
	// puts an empty job behind that commit before it reads, and tries again if the commit came to nothing.
	for range 3 {
		if _, err := r.add(ctx); errors.Is(err, store.ErrTaken) {
			err = source.ChangeMedia(ctx, func(store.MediaTx) error { return nil })
			if err != nil {
				return nil, fmt.Errorf("wait for the first key for media links: %w", err)
			}
		} else if err != nil {
			return nil, fmt.Errorf("make the first key for media links: %w", err)
		}
		if err := r.read(ctx); err != nil {
			return nil, err
		}
		if len(r.keys.Load().secrets) > 0 {
			return r, nil
		}
	}
	return nil, ErrNoKey
}

// StaticKeys makes a ring of given keys, for bridges without a store: IDs of their own, secrets of at least 32 random bytes. The newest by
// Created signs, once it is 30 seconds old or alone. A key with Retired set is left out.
func StaticKeys(keys ...store.MediaKey) (*KeyRing, error) {
	r := &KeyRing{now: time.Now}
	set, err := newKeySet(keys, r.now(), func(k store.MediaKey) bool { return !k.Retired.IsZero() })
	if err != nil {
		return nil, err
	}
	if len(set.secrets) == 0 {
		return nil, ErrNoKey
	}
	r.keys.Store(set)
	return r, nil
}

func newKeySet(keys []store.MediaKey, read time.Time, dead func(store.MediaKey) bool) (*keySet, error) {
	set := &keySet{read: read, secrets: make(map[uint8][]byte), created: make(map[uint8]time.Time)}
	for _, k := range keys {
		if dead(k) {
			continue
		}
		if len(k.Secret) < secretSize {
			return nil, fmt.Errorf("key %d for media links has %d bytes, and needs %d random ones at least: replace it", k.ID, len(k.Secret), secretSize)
		}
		if _, twice := set.secrets[k.ID]; twice {
			return nil, fmt.Errorf("key %d for media links is there twice: give each key an ID of its own", k.ID)
		}
		set.secrets[k.ID] = append([]byte(nil), k.Secret...)
		set.created[k.ID] = k.Created
	}
	return set, nil
}

// Reload reads the keys again, so that a rotation or a retirement made by another process holds in this one.
// It does nothing for given keys.
func (r *KeyRing) Reload(ctx context.Context) error {
	if r.source == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read(ctx)
}

func (r *KeyRing) read(ctx context.Context) error {
	at := r.now()
	keys, err := r.source.MediaKeys(ctx)
	if err != nil {
		return fmt.Errorf("read the keys for media links: %w", err)
	}
	set, err := newKeySet(keys, at, func(k store.MediaKey) bool { return !k.Dead.IsZero() })
	if err != nil {
		return err
	}
	r.keys.Store(set)
	if waiting := r.next.Swap(nil); waiting != nil {
		close(*waiting)
	}
	return nil
}

// learn waits for the next reading of the ring, which the server makes twice a second whoever asks, and tells whether the key is then known.
func (r *KeyRing) learn(ctx context.Context, id uint8) bool {
	own := make(chan struct{})
	waiting := &own
	for !r.next.CompareAndSwap(nil, waiting) {
		if other := r.next.Load(); other != nil {
			waiting = other
			break
		}
	}
	select {
	case <-*waiting:
	case <-ctx.Done():
	}
	return r.knows(id)
}

func (r *KeyRing) knows(id uint8) bool {
	_, ok := r.keys.Load().secrets[id]
	return ok
}

// refresh reads the keys again when the last reading is older than age.
func (r *KeyRing) refresh(ctx context.Context, age time.Duration) error {
	if r.source == nil || r.fresh(age) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fresh(age) { // another request has just done it
		return nil
	}
	return r.read(ctx)
}

func (r *KeyRing) fresh(age time.Duration) bool {
	since := r.now().Sub(r.keys.Load().read)
	return since >= 0 && since < age
}

// Rotate adds a new key and returns its ID. It signs from thirty seconds later on, when every process has read it, or at once when it is alone.
// Links made with the keys before it go on working until those are retired.
func (r *KeyRing) Rotate(ctx context.Context) (uint8, error) {
	if r.source == nil {
		return 0, ErrStaticKeys
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id, err := r.add(ctx, r.supersede(ctx))
	if err != nil {
		return 0, fmt.Errorf("rotate the keys for media links: %w", err)
	}
	return id, r.read(ctx)
}

// Retire ends a key, and with it every link made with it: here at once, in other processes within a second or at their next Reload. There is no way back. When it was the
// only key, a new one takes its place. An ID that is not in the ring is store.ErrNotFound.
func (r *KeyRing) Retire(ctx context.Context, id uint8) error {
	if r.source == nil {
		return ErrStaticKeys
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.read(ctx); err != nil {
		return err
	}
	set := r.keys.Load()
	if _, ok := set.created[id]; !ok {
		return fmt.Errorf("retire key %d for media links: %w", id, store.ErrNotFound)
	}
	kill := func(tx store.MediaTx) error { return tx.KillMediaKey(id) }
	if len(set.secrets) == 1 {
		_, err := r.add(ctx, r.supersede(ctx), kill)
		return r.retired(ctx, id, err)
	}
	return r.retired(ctx, id, r.source.ChangeMedia(ctx, kill))
}

func (r *KeyRing) retired(ctx context.Context, id uint8, err error) error {
	if err != nil {
		return fmt.Errorf("retire key %d for media links: %w", id, err)
	}
	return r.read(ctx)
}

// IDs returns the IDs of the keys that verify, and the one that signs.
func (r *KeyRing) IDs() (verify []uint8, signing uint8) {
	set := r.keys.Load()
	for id := range 256 {
		if _, ok := set.secrets[uint8(id)]; ok {
			verify = append(verify, uint8(id))
		}
	}
	signing, _, _ = r.signing()
	return verify, signing
}

// add makes a key, in one commit with what comes before it. The store keeps at most one key that is not marked as retired, which is how two
// first keys are never made.
func (r *KeyRing) add(ctx context.Context, before ...func(tx store.MediaTx) error) (uint8, error) {
	secret := make([]byte, secretSize)
	rand.Read(secret) // never fails: crypto/rand ends the process first
	key := store.MediaKey{Secret: secret, Created: r.now()}
	err := r.source.ChangeMedia(ctx, func(tx store.MediaTx) error {
		for _, do := range before {
			if err := do(tx); err != nil {
				return err
			}
		}
		return tx.AddMediaKey(&key)
	})
	return key.ID, err
}

// supersede marks the store's signing key as retired, to make room for its successor. To the store that means that the key signs no more; that its
// links are dead is said apart from it. When another process rotates at the same time, one of the two fails and changes nothing.
func (r *KeyRing) supersede(ctx context.Context) func(tx store.MediaTx) error {
	existing, err := r.source.MediaKeys(ctx)
	return func(tx store.MediaTx) error {
		if err != nil {
			return err
		}
		for _, k := range existing {
			if k.Retired.IsZero() {
				return tx.RetireMediaKey(k.ID)
			}
		}
		return nil
	}
}

// signing is the key that signs: the newest that every process has read by now, or the oldest when all are newer.
func (r *KeyRing) signing() (id uint8, secret []byte, ok bool) {
	set := r.keys.Load()
	settled := r.now().Add(-settle)
	var best time.Time
	bestSettled := false
	for k, created := range set.created {
		isSettled := !created.After(settled)
		better := !ok
		switch {
		case better:
		case isSettled != bestSettled:
			better = isSettled
		case isSettled:
			better = created.After(best) || created.Equal(best) && k > id
		default:
			better = created.Before(best) || created.Equal(best) && k < id
		}
		if better {
			id, best, bestSettled, ok = k, created, isSettled, true
		}
	}
	return id, set.secrets[id], ok
}

// path signs a link: its path, and its query if it has one; false when there is no key to sign with.
func (r *KeyRing) path(c *claims, display string) (string, bool) {
	key, secret, ok := r.signing()
	c.key = key
	return c.path(c.sum(secret), display), ok
}

// pathBy signs a link with the key that c names; false when that was retired.
func (r *KeyRing) pathBy(c *claims, display string) (string, bool) {
	secret, ok := r.keys.Load().secrets[c.key]
	return c.path(c.sum(secret), display), ok
}

// verify tells whether the MAC of a link holds under a key of the ring. It asks nobody.
func (r *KeyRing) verify(c *claims, m mac) bool {
	secret, ok := r.keys.Load().secrets[c.key]
	return ok && c.holds(secret, m)
}

// lives tells whether a key is still in the ring, by a reading that is at most staleAfter old. It is asked after the MAC held.
func (r *KeyRing) lives(ctx context.Context, id uint8) (bool, error) {
	if err := r.refresh(ctx, staleAfter); err != nil {
		return false, err
	}
	_, ok := r.keys.Load().secrets[id]
	return ok, nil
}
