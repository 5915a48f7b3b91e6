package bridge

import (
	"context"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// newCipher opens the keys that the store has, for a configuration that wants any.
func newCipher(ctx context.Context, cfg *Config, s *store.Store, as *appservice.AppService, log zerolog.Logger) (*crypto.Crypto, error) {
	key, err := pickleKey(ctx, cfg, s)
	if err != nil {
		return nil, err
	}
	return crypto.New(ctx, crypto.Options{
		Store: s, AS: as, Log: log, PickleKey: key, Send: trusts[cfg.Encryption.Send], Receive: trusts[cfg.Encryption.Receive],
		Sync: syncs[cfg.Encryption.Sync],
	})
}
