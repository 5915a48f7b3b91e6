//go:build goolm

package crypto

import (
	"context"
	"fmt"
	"time"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
)

// fallbackFor is how long a fallback key is kept in use at least. An account keeps two: were it replaced twice within the time that a message may
// be under way, the message could not be read. What a transaction says of its use may also be older than the key.
const fallbackFor = time.Hour

// fallbackSecret holds when the fallback key was last replaced, as RFC 3339.
const fallbackSecret id.Secret = "trestle.fallback_replaced"

// replaceFallback makes a new fallback key after the homeserver has handed out the present one (MSC2732). The one before is kept, for messages that
// are still to come. few: the homeserver has few one-time keys as well.
func replaceFallback(ctx context.Context, mach *crypto.OlmMachine, few bool, now time.Time) error {
	k, err := keysOf(mach)
	if err != nil {
		return err
	}
	if k.account.NumFallbackKeys > 0 && k.account.CurrentFallbackKey.Published {
		last, err := mach.CryptoStore.GetSecret(ctx, fallbackSecret)
		if err != nil {
			return k.named(fmt.Errorf("read when the fallback key was replaced: %w", err))
		}
		if at, err := time.Parse(time.RFC3339, last); err == nil && now.Sub(at).Abs() < fallbackFor {
			if few {
				return shareKeys(ctx, mach)
			}
			return nil
		}
		// First the time: a process that ends between the two must not replace the key twice in a row.
		if err := mach.CryptoStore.PutSecret(ctx, fallbackSecret, now.Format(time.RFC3339)); err != nil {
			return k.named(fmt.Errorf("store when the fallback key was replaced: %w", err))
		}
		if err := k.account.GenFallbackKey(); err != nil {
			return k.named(fmt.Errorf("make a fallback key: %w", err))
		}
	}
	return shareKeys(ctx, mach)
}
