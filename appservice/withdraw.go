package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"maunium.net/go/mautrix/id"
)

// JoinedRooms asks the homeserver which rooms the user is in. A user that the homeserver does not have is in none; it is not
// registered for this.
func (i *Intent) JoinedRooms(ctx context.Context) ([]id.RoomID, error) {
	resp, err := i.client("").JoinedRooms(ctx)
	if errorCode(err) == codeForbidden {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("ask which rooms %s is in: %w", i.user, i.as.explain(err))
	}
	return resp.JoinedRooms, nil
}

// Withdraw leaves and forgets every room that the user is in, and those of known, to which it may only be invited. It is
// for who takes a bridge away: nothing is registered or joined, and doing it again does what is left. left is how many rooms
// the user was in.
func (i *Intent) Withdraw(ctx context.Context, known []id.RoomID, reason string) (left int, err error) {
	// Of somebody else's users homeservers say the same as of those that they do not have.
	if err := checkUserID(i.user, i.as.cfg.ServerName); err != nil {
		return 0, fmt.Errorf("withdraw %s: %w", i.user, err)
	}
	if !i.as.isOwn(i.user) {
		return 0, fmt.Errorf("withdraw %s: it is outside of the registration's namespaces", i.user)
	}
	joined, err := i.JoinedRooms(ctx)
	if err != nil {
		return 0, err
	}
	cli := i.client("")
	for _, room := range joined {
		_, err := cli.MakeRequest(withRepeat(ctx), http.MethodPost, cli.BuildClientURL("v3", "rooms", room, "leave"), map[string]string{"reason": reason}, nil)
		if err != nil && !outside(err) {
			return left, fmt.Errorf("leave %s as %s: %w", room, i.user, i.as.explain(err))
		}
		if left++; !slices.Contains(known, room) {
			known = append(known[:len(known):len(known)], room)
		}
	}
	for _, room := range known {
		if !slices.Contains(joined, room) {
			// An invitation is refused by leaving. In most of these rooms the user is no longer.
			_, err := cli.MakeRequest(withRepeat(ctx), http.MethodPost, cli.BuildClientURL("v3", "rooms", room, "leave"), struct{}{}, nil)
			if err != nil && !outside(err) {
				return left, fmt.Errorf("leave %s as %s: %w", room, i.user, i.as.explain(err))
			}
		}
		_, err := cli.MakeRequest(withRepeat(ctx), http.MethodPost, cli.BuildClientURL("v3", "rooms", room, "forget"), struct{}{}, nil)
		if err != nil && !outside(err) {
			return left, fmt.Errorf("forget %s as %s: %w", room, i.user, i.as.explain(err))
		}
	}
	return left, nil
}

// outside says whether a request failed because the user is not in the room, or there is neither.
func outside(err error) bool {
	switch errorStatus(err) {
	case http.StatusForbidden, http.StatusNotFound, http.StatusBadRequest:
		return errorCode(err) != "" && !isRefusal(err)
	}
	return false
}

// RemoveAliases deletes those of a room's aliases that are the bridge's, and says how many. The user must be in the room.
func (i *Intent) RemoveAliases(ctx context.Context, room id.RoomID) (removed int, err error) {
	cli := i.client("")
	var resp struct {
		Aliases []id.RoomAlias `json:"aliases"`
	}
	_, err = cli.MakeRequest(ctx, http.MethodGet, cli.BuildClientURL("v3", "rooms", room, "aliases"), nil, &resp)
	if isUnsupported(err) || outside(err) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("ask for the aliases of %s: %w", room, i.as.explain(err))
	}
	var errs []error
	for _, alias := range resp.Aliases {
		if !i.as.ownsAlias(alias) {
			continue
		}
		gone, err := i.deleteAlias(ctx, alias)
		errs = append(errs, err)
		if gone {
			removed++
		}
	}
	return removed, errors.Join(errs...)
}
