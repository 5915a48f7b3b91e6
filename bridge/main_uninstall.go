package bridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// uninstallCommand removes from the homeserver what the bridge has made there, or says what that would be.
func (p *program) uninstallCommand(f *flag.FlagSet) func() int {
	yes := f.Bool("yes", false, "do it; without, only what there is to do is printed")
	drop := f.Bool("drop-store", false, "with -yes: delete the bridge's database afterwards, for good")
	return func() int {
		cfg, status := p.load()
		if cfg == nil {
			return status
		}
		if *drop && !*yes {
			return p.wrong("-drop-store deletes the database for good; write -yes -drop-store if that is meant")
		}
		registration, err := appservice.LoadRegistration(cfg.Appservice.Registration)
		if err != nil {
			fmt.Fprintln(p.stderr, err)
			return exitWrong
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		v, err := openBeside(ctx, cfg)
		if err != nil {
			fmt.Fprintln(p.stderr, err) // it tells no password
			return exitFailed
		}
		there, err := v.Belongings(ctx)
		if err = errors.Join(err, v.Close()); err != nil {
			fmt.Fprintln(p.stderr, err)
			return exitFailed
		}
		if !*yes {
			p.printBelongings(cfg, &there)
			return exitOK
		}
		return p.uninstall(ctx, cfg, registration, *drop)
	}
}

// printBelongings says what would be done.
func (p *program) printBelongings(cfg *Config, b *store.Belongings) {
	fmt.Fprintf(p.stdout, "On %s the bridge has, as far as its database knows:\n\n", cfg.Homeserver.Address)
	for _, line := range []struct {
		n    int64
		what string
	}{
		{b.Ghosts, "users: the ghosts and the bot"}, {b.Devices, "devices of theirs"}, {b.Rooms, "rooms with any of them"},
		{b.Stays, "memberships in those"}, {b.Portals, "portals"}, {b.Links, "media links that work"},
		{b.Waiting, "transactions and messages that wait"}, {b.Letters, "dead letters"},
	} {
		fmt.Fprintf(p.stdout, "  %7d  %s\n", line.n, line.what)
	}
	fmt.Fprintf(p.stdout, `
uninstall -yes makes all users leave and forget all their rooms, deletes their
devices, deletes the bridge's aliases, and ends media links. That cannot be
undone. Stop the bridge before. -drop-store deletes the database as well, with
what waits in it.

Nothing was done.
`)
}

// uninstall is carried out with the bridge's place taken: nobody can start it meanwhile.
func (p *program) uninstall(ctx context.Context, cfg *Config, r *appservice.Registration, drop bool) int {
	say := func(format string, args ...any) int {
		fmt.Fprintf(p.stderr, format+"\n", args...)
		return exitFailed
	}
	s, probe, done, err := p.alone(ctx, cfg, r)
	if err != nil {
		return say("%v", err)
	}
	u := &uninstallation{store: s, out: p.stdout, problems: p.stderr}
	err = u.run(ctx, cfg, r)
	if closing := done(); err == nil && closing != nil {
		err = closing
	}
	switch {
	case ctx.Err() != nil:
		return say("interrupted; the same command goes on where it was")
	case err != nil:
		return say("%v\nthe same command goes on where it was", err)
	}
	if drop {
		if err := store.Remove(ctx, cfg.Database); err != nil {
			return say("%s", withoutPassword(err.Error(), cfg.Database))
		}
		fmt.Fprintln(p.stdout, "The database is deleted.")
	}
	p.printRemains(cfg, r, probe.brand, drop)
	return exitOK
}

// printRemains says what an appservice cannot remove, and who can.
func (p *program) printRemains(cfg *Config, r *appservice.Registration, b brand, dropped bool) {
	path := cfg.Appservice.Registration
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	var kept []string
	for _, file := range []string{p.config, path} {
		kept = append(kept, "delete "+file)
	}
	database := "The database is as it was, but for the users; uninstall -yes -drop-store deletes it."
	if dropped {
		database = "Of an SQLite database the empty file beside it, which ends in .lock, may be deleted."
	}
	fmt.Fprintf(p.stdout, `
What remains, because only the homeserver's administrator can remove it:

  the registration  %s
  the accounts      of %s and @%s…, which do nothing any more; an appservice
                    cannot deactivate them: %s
  what was said     messages, and the pictures of ghosts

Then %s. %s
`, b.unregister(r.ID, path), "@"+cfg.Appservice.Bot+":"+cfg.Homeserver.Domain, cfg.Appservice.Ghosts, b.deactivate(), strings.Join(kept, ", and "), database)
}
