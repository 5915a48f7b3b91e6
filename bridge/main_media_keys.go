package bridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

func mediaKeySubcommands() []subcommand {
	return []subcommand{
		{name: "list", help: "the keys, and which one signs", flags: (*program).mediaKeysList},
		{name: "rotate", help: "add a key; it signs in half a minute, and old links go on working", flags: (*program).mediaKeysRotate},
		{name: "retire", args: "ID…", help: "end a key and every link that it signed, for good", flags: (*program).mediaKeysRetire},
	}
}

// mediaKeysList prints everything about the keys but the keys.
func (p *program) mediaKeysList(*flag.FlagSet) func() int {
	return func() int {
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			keys, err := v.MediaKeys(ctx)
			if err != nil {
				return 0, err
			}
			if len(keys) == 0 {
				fmt.Fprintln(p.stdout, "There are no keys yet; the first one is made at the first start with media links.")
				return exitOK, nil
			}
			ring, err := proxy.OpenKeyRing(ctx, v, nil)
			if err != nil {
				return 0, err
			}
			_, signing := ring.IDs()
			w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tMADE\tSTATE")
			for _, k := range keys {
				state := "verifies"
				switch {
				case !k.Dead.IsZero():
					state = "retired " + k.Dead.Local().Format(letterTime)
				case k.ID == signing:
					state = "signs"
				case k.Retired.IsZero():
					state = "verifies, and signs when it is 30 seconds old"
				}
				fmt.Fprintf(w, "%d\t%s\t%s\n", k.ID, k.Created.Local().Format(letterTime), state)
			}
			return exitOK, w.Flush()
		})
	}
}

func (p *program) mediaKeysRotate(*flag.FlagSet) func() int {
	return func() int {
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			ring, err := proxy.OpenKeyRing(ctx, v, nil)
			if err != nil {
				return 0, err
			}
			key, err := ring.Rotate(ctx)
			if errors.Is(err, store.ErrTaken) || errors.Is(err, store.ErrNotFound) {
				return 0, fmt.Errorf("%w: somebody else changes the keys at this moment; see media keys list", err)
			} else if err != nil {
				return 0, err
			}
			fmt.Fprintf(p.stdout, "Key %d is there, and signs in half a minute. Links of the older keys go on working until those are retired.\n", key)
			return exitOK, nil
		})
	}
}

func (p *program) mediaKeysRetire(*flag.FlagSet) func() int {
	return func() int {
		var ids []uint8
		for _, arg := range p.args {
			n, err := strconv.ParseUint(arg, 10, 8)
			if err != nil || n == 0 {
				return p.wrong("%q is not the ID of a key: that is a number up to 255; media keys list has them", arg)
			}
			ids = append(ids, uint8(n))
		}
		if len(ids) == 0 {
			return p.wrong("say which: media keys retire ID…; media keys list has the IDs")
		}
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			ring, err := proxy.OpenKeyRing(ctx, v, nil)
			if err != nil {
				return 0, err
			}
			status := exitOK
			var retired []uint8
			for _, key := range ids {
				switch err := ring.Retire(ctx, key); {
				case errors.Is(err, store.ErrNotFound):
					fmt.Fprintf(p.stderr, "there is no key %d that is not retired; see media keys list\n", key)
					status = exitFailed
				case err != nil:
					return 0, err
				default:
					retired = append(retired, key)
				}
			}
			if len(retired) > 0 {
				time.Sleep(proxy.ObeyedWithin)
			}
			_, signing := ring.IDs()
			for _, key := range retired {
				fmt.Fprintf(p.stdout, "Key %d is retired, and its links are dead. Key %d signs.\n", key, signing)
			}
			return status, nil
		})
	}
}
