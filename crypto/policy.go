//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"

	"github.com/trestle-bridge/trestle/store"
)

// policySetting is whom the room keys in the store were given to, as a configuration says it.
const policySetting = "crypto.send"

// keepPolicy has no room key used any more that was given under another policy: with a stricter one some have it who are not to read what is sent from now on,
// with a less strict one some do not have it who may. It is for the start, before anything is encrypted.
func (c *Crypto) keepPolicy(ctx context.Context) error {
	now := c.opts.Send.String()
	before, err := c.store.Setting(ctx, policySetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("read whom room keys were given to: %w", err)
	}
	if err == nil && string(before) == now {
		return nil
	}
	return c.commit(ctx, func(_ context.Context, tx *store.Tx) error {
		if err := tx.DropAllRoomKeys(); err != nil {
			return err
		}
		return tx.PutSetting(policySetting, []byte(now))
	})
}
