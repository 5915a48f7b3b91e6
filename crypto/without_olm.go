//go:build !goolm

package crypto

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// Crypto cannot be had without the build tag goolm.
type Crypto struct{}

// New returns [ErrNoOlm].
func New(context.Context, Options) (*Crypto, error) { return nil, ErrNoOlm }

// Close does nothing.
func (*Crypto) Close() error { return nil }

// Prepare returns [ErrNoOlm].
func (*Crypto) Prepare(context.Context, id.UserID) error { return ErrNoOlm }

// HandleKeys returns [ErrNoOlm].
func (*Crypto) HandleKeys(context.Context, *appservice.Event) error { return ErrNoOlm }

// Open returns [ErrNoOlm].
func (*Crypto) Open(context.Context, *appservice.Event, id.UserID) (*event.Event, error) {
	return nil, ErrNoOlm
}

// RequestKey returns [ErrNoOlm].
func (*Crypto) RequestKey(context.Context, *appservice.Event, id.UserID) error { return ErrNoOlm }

// Watch returns [ErrNoOlm].
func (*Crypto) Watch(context.Context, *appservice.Event, id.SessionID, id.UserID) (func(tx *store.Tx) (bool, error), error) {
	return nil, ErrNoOlm
}

// Seal returns [ErrNoOlm].
func (*Crypto) Seal(context.Context, Sealing) (json.RawMessage, error) { return nil, ErrNoOlm }

// ResetCrossSigning returns [ErrNoOlm].
func (*Crypto) ResetCrossSigning(context.Context, id.UserID) error { return ErrNoOlm }

// RecoveryKey returns [ErrNoOlm].
func (*Crypto) RecoveryKey(context.Context, id.UserID) (string, error) { return "", ErrNoOlm }

// TryPickleKey returns [ErrNoOlm].
func TryPickleKey(account, key []byte) error { return ErrNoOlm }
