//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"

	"maunium.net/go/mautrix/crypto/olm"

	"github.com/trestle-bridge/trestle/store"
)

// pickleError names what it means that a key cannot be opened.
func pickleError(err error) error {
	if errors.Is(err, olm.ErrBadMAC) {
		return fmt.Errorf("%w (%w)", ErrPickleKey, err)
	}
	return err
}

// tryPickleKey opens one account of the store, if there is any.
func (c *Crypto) tryPickleKey(ctx context.Context) error {
	pickled, err := c.store.AnyKeyAccount(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return TryPickleKey(pickled, c.opts.PickleKey)
}

// TryPickleKey says whether a key opens an account as [store.Store.AnyKeyAccount] gives it; [ErrPickleKey] when it is another one.
func TryPickleKey(account, key []byte) error {
	_, err := olm.AccountFromPickled(account, key)
	return pickleError(err)
}
