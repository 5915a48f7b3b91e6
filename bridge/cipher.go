package bridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// pickleMend is what to do about keys that cannot be opened.
const pickleMend = "write what was in encryption.pickle_key when the keys were made, or leave it empty if it was then"

// newCipher opens the keys that the store has, for a configuration that wants any.
func newCipher(ctx context.Context, cfg *Config, s *store.Store, as *appservice.AppService, log zerolog.Logger) (*crypto.Crypto, error) {
	key, err := pickleKey(ctx, cfg, s)
	if err != nil {
		return nil, err
	}
	c, err := crypto.New(ctx, crypto.Options{
		Store: s, AS: as, Log: log, PickleKey: key, Send: trusts[cfg.Encryption.Send], Receive: trusts[cfg.Encryption.Receive],
		Sync: syncs[cfg.Encryption.Sync],
	})
	if errors.Is(err, crypto.ErrPickleKey) {
		err = fmt.Errorf("%w; %s", err, pickleMend)
	}
	return c, err
}
