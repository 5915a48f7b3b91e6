//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// countsAbreast is how many devices get new keys at once.
const countsAbreast = 8

// publicKeyLength is that of a key in base64. Synapse counts a user's cross-signing keys among its devices, by that name.
const publicKeyLength = 43

// keyCounts gives the homeserver new keys of devices that have few left, or whose fallback key was handed out. A device that the homeserver counts no keys
// of has none (MSC4225). Only devices that are the bridge's and have keys are looked at: a homeserver tells of others too.
func (c *Crypto) keyCounts(ctx context.Context, ev *appservice.Event) error {
	var counts struct {
		OneTime  map[id.UserID]map[id.DeviceID]map[id.KeyAlgorithm]int `json:"device_one_time_keys_count"`
		Fallback map[id.UserID]map[id.DeviceID][]id.KeyAlgorithm       `json:"device_unused_fallback_key_types"`
	}
	if err := json.Unmarshal(ev.Raw, &counts); err != nil {
		return appservice.Permanent(fmt.Errorf("key counts: %w", err))
	}
	wanted := make(map[deviceKey]lacking)
	for user, devices := range counts.OneTime {
		for device, algorithms := range devices {
			if algorithms[id.KeyAlgorithmSignedCurve25519] <= fewKeys {
				wanted[deviceKey{user, device}] = lacking{few: true}
			}
		}
	}
	for user, devices := range counts.Fallback {
		for device, unused := range devices {
			if !slices.Contains(unused, id.KeyAlgorithmSignedCurve25519) {
				wanted[deviceKey{user, device}] = lacking{wanted[deviceKey{user, device}].few, true}
			}
		}
	}
	return c.giveKeys(ctx, wanted)
}

// lacking is what a homeserver has too little of, of a device: one-time keys, a fallback key that nobody has used.
type lacking struct{ few, fallback bool }

func (c *Crypto) giveKeys(ctx context.Context, wanted map[deviceKey]lacking) error {
	var (
		mu      sync.Mutex
		errs    []error
		running sync.WaitGroup
		turns   = make(chan struct{}, countsAbreast)
	)
	for key, what := range wanted {
		if len(key.device) == publicKeyLength {
			continue
		}
		turns <- struct{}{}
		running.Go(func() {
			defer func() { <-turns }()
			if err := c.giveKeysOf(ctx, key, what); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

func (c *Crypto) giveKeysOf(ctx context.Context, key deviceKey, what lacking) error {
	if _, prepared := c.prepared.Load(key); !prepared {
		if own, err := c.isDevice(ctx, key); err != nil || !own {
			return err
		}
	}
	m, release := c.use(key)
	defer release()
	err := m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		if what.fallback {
			return replaceFallback(ctx, l.OlmMachine, what.few, time.Now())
		}
		return shareKeys(ctx, l.OlmMachine)
	})
	switch {
	case errors.Is(err, ErrNoMachine):
		return nil // it was not prepared
	case isOfDevice(err):
		c.log.Warn().Err(c.as.Explain(err)).Str("account", key.account()).Msg("A device cannot be given keys; it is left out")
		return nil
	}
	return err
}

// isOfDevice says whether an error is about one device, such as one that is gone, and not mended by waiting: the keys of all others wait behind it.
func isOfDevice(err error) bool {
	var refusal mautrix.HTTPError
	if !errors.As(err, &refusal) || refusal.Response == nil {
		return errors.Is(err, ErrForeign)
	}
	status := refusal.Response.StatusCode
	return status/100 == 4 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// isDevice says whether a device is the one that a user of the bridge has now.
func (c *Crypto) isDevice(ctx context.Context, key deviceKey) (bool, error) {
	ghost, err := c.store.Ghost(ctx, string(key.user))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && ghost.DeviceID == string(key.device), err
}
