//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"

	"maunium.net/go/mautrix/crypto/ssss"
)

// recoveryKey puts the user's cross-signing keys into secret storage on the homeserver, and returns the key that opens it. The homeserver has taken the
// public keys before: secrets that are stored first would outlive a refusal.
//
// That it was made is written last. Whoever saw nothing, because something failed or the process ended, asks again, and gets another key.
func (c *crossSigner) recoveryKey(ctx context.Context) (string, error) {
	known, err := c.load(ctx)
	switch {
	case err != nil:
		return "", err
	case known == nil || known.Seeds == nil:
		return "", errors.New("the cross-signing keys are not on the homeserver yet")
	case known.Recovery != "" && !known.Recovering:
		return "", ErrRecoveryKey
	}
	there, err := c.mach.SSSS.GetDefaultKeyID(ctx)
	if err != nil && !errors.Is(err, ssss.ErrNoDefaultKeyAccountDataEvent) && !errors.Is(err, ssss.ErrNoKeyFieldInAccountDataEvent) {
		return "", fmt.Errorf("ask whether there is secret storage: %w", err)
	}
	if there != "" && !known.Recovering {
		return "", ErrOtherSecrets
	}
	key, err := c.mach.SSSS.GenerateAndUploadKey(ctx, "")
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	// First that it is ours: after a lost answer it must not be taken for somebody else's.
	known.Recovery, known.Recovering = key.ID, true
	if err := c.write(ctx, known); err != nil {
		return "", err
	}
	if err := c.mach.UploadCrossSigningKeysToSSSS(ctx, key, c.mach.CrossSigningKeys); err != nil {
		return "", fmt.Errorf("store the keys on the homeserver: %w", err)
	}
	if err := c.mach.SSSS.SetDefaultKeyID(ctx, key.ID); err != nil {
		return "", fmt.Errorf("make it the user's key: %w", err)
	}
	known.Recovering = false
	if err := c.write(ctx, known); err != nil {
		return "", err
	}
	return key.RecoveryKey(), nil
}
