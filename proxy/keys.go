package proxy

import (
	"context"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// KeyRing holds the keys of media links.
type KeyRing struct{}

// OpenKeyRing reads the ring from the store and makes the first key when there is none. A nil now is time.Now.
func OpenKeyRing(ctx context.Context, st *store.Store, now func() time.Time) (*KeyRing, error) {
	return &KeyRing{}, nil
}

// StaticKeys makes a ring of given keys, for bridges without a store.
func StaticKeys(keys ...store.MediaKey) (*KeyRing, error) { return &KeyRing{}, nil }

// Reload reads the keys again.
func (r *KeyRing) Reload(ctx context.Context) error { return nil }

// Rotate adds a new signing key and returns its ID.
func (r *KeyRing) Rotate(ctx context.Context) (uint8, error) { return 0, ErrStaticKeys }

// Retire ends a key and with it every link made with it.
func (r *KeyRing) Retire(ctx context.Context, id uint8) error { return ErrStaticKeys }
