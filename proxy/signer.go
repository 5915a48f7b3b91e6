package proxy

import (
	"context"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// DefaultLifetime is how long a link lives when nothing else is said.
const DefaultLifetime = 30 * 24 * time.Hour

// SignerConfig is what a Signer needs.
type SignerConfig struct {
	PublicURL string        // where browsers reach the Server: https://bridge.example, with a path when a reverse proxy strips one
	Store     *store.Store  // where records and keys are; nil: self-contained links only, and Keys is needed
	Keys      *KeyRing      // nil: opened from Store
	Lifetime  time.Duration // of a link; 0: DefaultLifetime; negative: for ever
	Now       func() time.Time
}

// Signer makes links.
type Signer struct {
	cfg SignerConfig
}

// NewSigner checks the configuration and, where the store has no key yet, makes the first one.
func NewSigner(ctx context.Context, cfg SignerConfig) (*Signer, error) {
	return &Signer{cfg: cfg}, nil
}

// Short writes the link's record and returns the link. The record is durable when Short returns.
func (s *Signer) Short(ctx context.Context, m Media) (string, error) { return "", ErrNoKey }

// SelfContained returns a link that needs no record.
func (s *Signer) SelfContained(m Media) (string, error) { return "", ErrNoKey }

// Keys returns the ring the signer signs with, for the Server of the same process.
func (s *Signer) Keys() *KeyRing { return s.cfg.Keys }
