package bridge

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/trestle-bridge/trestle/store"
)

// identity compares the bot's cross-signing keys in the database with those that the homeserver has, as a start does: where they are others, it does not start.
func (h *homeserverProbe) identity(ctx context.Context, f *findings) {
	if !h.cfg.encrypts() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	v, err := store.Visit(ctx, h.cfg.Database)
	if err != nil {
		return // there is none yet, or checkDatabase has said why
	}
	defer v.Close()
	own, err := v.MasterKey(ctx, h.bot)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return
	}
	answer, err := h.as(ctx, h.bot, http.MethodPost, "/_matrix/client/v3/keys/query", "", map[string]any{"device_keys": map[string][]string{h.bot: {}}})
	if err != nil || answer.status != http.StatusOK {
		f.warn("encryption", "", "which cross-signing keys the homeserver has of %s cannot be found out: %v", h.bot, orError(answer, err))
		return
	}
	if there := slices.Collect(maps.Values(answer.MasterKeys[h.bot].Keys)); len(there) > 0 && !slices.Contains(there, own) {
		f.fail("encryption", "stop the bridge and run reset-cross-signing -yes; whoever has verified the bot must do so again",
			"the homeserver has cross-signing keys of %s that are not those of the database, because one of the two was put back to an older state, or is another", h.bot)
	}
}
