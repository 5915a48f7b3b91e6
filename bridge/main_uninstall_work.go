package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

const (
	// uninstallAbreast is how many users are removed at once: the homeserver has others to serve.
	uninstallAbreast = 4
	// uninstallSteps is after how many users progress is said.
	uninstallSteps = 100
	// uninstallWait bounds the wait that a homeserver asks for when it limits rates.
	uninstallWait = 5 * time.Minute
	// uninstallShown is how many problems are told of.
	uninstallShown = 10

	uninstallReason = "The bridge is removed"
)

// uninstallation removes what a bridge has on its homeserver, user by user. A user who is done is forgotten in the store, so
// that the next try, after whatever ended this one, goes on with the others. The bot is the last: it is known whoever is
// forgotten.
type uninstallation struct {
	store    *store.Store
	as       *appservice.AppService
	out      io.Writer
	problems io.Writer

	mu     sync.Mutex
	total  int
	done   int
	left   int // rooms
	kept   int // devices that the homeserver does not delete
	failed int
}

// nobody would handle what the homeserver sends, if that were taken in.
type nobody struct{}

func (nobody) HandleEvent(context.Context, *appservice.Event) ([]appservice.Effect, error) {
	return nil, appservice.Later(errors.New("the bridge is being removed"))
}
func (nobody) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

func (u *uninstallation) run(ctx context.Context, cfg *Config, r *appservice.Registration) (err error) {
	u.as, err = appservice.New(appservice.Config{
		Registration: r, HomeserverURL: cfg.Homeserver.Address, ServerName: cfg.Homeserver.Domain, Store: u.store,
		Handler: nobody{}, Log: zerolog.Nop(), DeviceMode: cfg.Appservice.DeviceMode,
	})
	if err != nil {
		return err
	}
	defer func() { _ = u.as.Stop(context.WithoutCancel(ctx)) }()
	if err := u.aliases(ctx); err != nil {
		return err
	}
	if err := u.users(ctx); err != nil {
		return err
	}
	if err := u.links(ctx); err != nil {
		return err
	}
	switch {
	case u.failed > 0:
		return fmt.Errorf("%s could not be removed", count(u.failed, "user"))
	case u.kept > 0:
		return fmt.Errorf("%s could not be deleted: %w", count(u.kept, "device"), appservice.ErrDeviceKept)
	}
	return nil
}

// aliases needs the bot in the rooms.
func (u *uninstallation) aliases(ctx context.Context) error {
	rooms, err := u.as.Bot().JoinedRooms(ctx)
	if err != nil {
		return err
	}
	removed := 0
	for _, room := range rooms {
		err := patiently(ctx, func() error {
			n, err := u.as.Bot().RemoveAliases(ctx, room)
			removed += n
			return err
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(u.out, "Deleted %s.\n", countOf(removed, "alias", "aliases"))
	return nil
}

// users removes the ghosts, a few at a time, and then the bot.
func (u *uninstallation) users(ctx context.Context) error {
	bot := u.as.Bot().UserID()
	var ghosts []id.UserID
	err := u.store.Ghosts(ctx, func(g *store.Ghost) error {
		if user := id.UserID(g.UserID); user != bot {
			ghosts = append(ghosts, user)
		}
		return nil
	})
	if err != nil {
		return err
	}
	stays, err := u.store.Stays(ctx)
	if err != nil {
		return err
	}
	u.total = len(ghosts) + 1
	next := make(chan id.UserID)
	var working sync.WaitGroup
	for range uninstallAbreast {
		working.Go(func() {
			for user := range next {
				u.remove(ctx, user, stays[string(user)])
			}
		})
	}
	for _, user := range ghosts {
		select {
		case next <- user:
		case <-ctx.Done():
		}
	}
	close(next)
	working.Wait()
	if ctx.Err() == nil {
		u.remove(ctx, bot, stays[string(bot)])
	}
	fmt.Fprintf(u.out, "Removed %d of %s from %s.\n", u.done, count(u.total, "user"), count(u.left, "membership"))
	return ctx.Err()
}

// remove takes one user out of everything.
func (u *uninstallation) remove(ctx context.Context, user id.UserID, stays []string) {
	intent := u.as.Ghost(user)
	rooms := make([]id.RoomID, len(stays))
	for n, room := range stays {
		rooms[n] = id.RoomID(room)
	}
	left := 0
	err := patiently(ctx, func() error {
		n, err := intent.Withdraw(ctx, rooms, uninstallReason)
		left += n
		return err
	})
	if err == nil {
		err = patiently(ctx, func() error { return intent.RemoveDevice(ctx) })
	}
	if err == nil {
		err = u.store.Commit(ctx, u.store.Epoch(), func(tx *store.Tx) error { return tx.ForgetGhost(string(user), stays) })
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left += left
	switch {
	case err == nil:
		if u.done++; u.done%uninstallSteps == 0 {
			fmt.Fprintf(u.out, "%d of %d users are done.\n", u.done, u.total)
		}
	case ctx.Err() != nil: // it is said once, by the caller
	case errors.Is(err, appservice.ErrDeviceKept):
		u.done++
		u.kept++
	default:
		if u.failed++; u.failed <= uninstallShown {
			fmt.Fprintln(u.problems, err)
		}
	}
}

// patiently does something again for as long as the homeserver says when to.
func patiently(ctx context.Context, act func() error) error {
	for {
		err := act()
		wait := appservice.RetryAfter(err)
		if wait <= 0 || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(min(wait, uninstallWait)):
		case <-ctx.Done():
			return err
		}
	}
}

// links ends all media links, those that no record tells of as well.
func (u *uninstallation) links(ctx context.Context) error {
	n := int64(0)
	err := u.store.ChangeMedia(ctx, func(tx store.MediaTx) (err error) {
		n, err = tx.RevokeLinks(store.MediaScope{})
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(u.out, "Ended %s.\n", count(int(n), "media link"))
	return nil
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
