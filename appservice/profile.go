package appservice

import (
	"context"
	"fmt"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// SetDisplayName sets the user's name, when it is not the one that was set last.
func (i *Intent) SetDisplayName(ctx context.Context, name string) error {
	return i.registered(ctx, func() error { return i.setDisplayName(ctx, name) })
}

func (i *Intent) setDisplayName(ctx context.Context, name string) error {
	if g, err := i.ghost(ctx); err != nil || g.DisplayName == name {
		return err
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if g, err := i.ghost(ctx); err != nil || g.DisplayName == name {
		return err
	}
	if err := i.client("").SetDisplayName(ctx, name); err != nil {
		return fmt.Errorf("set the name of %s: %w", i.user, i.as.explain(err))
	}
	return i.update(ctx, func(g *store.Ghost) { g.DisplayName = name })
}

// Profile reads anybody's profile.
func (i *Intent) Profile(ctx context.Context, user id.UserID) (*mautrix.RespUserProfile, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	resp, err := i.client("").GetProfile(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("read the profile of %s: %w", user, i.as.explain(err))
	}
	return resp, nil
}
