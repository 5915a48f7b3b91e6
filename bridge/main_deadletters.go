package bridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// letterKinds are the kinds of dead letters, and what each is.
var letterKinds = []struct{ name, meaning string }{
	{"pdu", "an event of a Matrix room that did not reach the network"},
	{letterOutbox, "something from the network, or of the bot, that did not reach Matrix"},
	{"to_device", "a message between devices that could not be handled"},
	{"element", "a part of a transaction that could not be handled, or is none"},
	{"body", "a whole transaction that is not JSON"},
}

func letterSubcommands() []subcommand {
	return []subcommand{
		{name: "list", help: "what there is, the newest first", flags: (*program).lettersList},
		{name: "show", args: "ID…", help: "everything about it, with what is in it", flags: (*program).lettersShow},
		{name: "replay", args: "ID…", help: "deliver it again, as if it had just come; -all: every one", flags: (*program).lettersReplay},
		{name: "drop", args: "ID…", help: "forget it for good; -all -yes: every one", flags: (*program).lettersDrop},
	}
}

// letterFilter is which dead letters are meant.
type letterFilter struct{ kind, room string }

func (l *letterFilter) define(f *flag.FlagSet) {
	f.StringVar(&l.kind, "kind", "", "only those of this `KIND`: pdu, outbox, to_device, element or body")
	f.StringVar(&l.room, "room", "", "only those of this `ROOM`, by its ID (!abc:example.org), or of this lane")
}

// mistake says what is wrong with the filter, or nothing.
func (l *letterFilter) mistake() string {
	var names []string
	for _, k := range letterKinds {
		names = append(names, k.name)
	}
	switch {
	case l.kind == "" || slices.Contains(names, l.kind):
		return ""
	case nearest(l.kind, names) != "":
		return fmt.Sprintf("there is no kind %q; write -kind %s", l.kind, nearest(l.kind, names))
	}
	return fmt.Sprintf("there is no kind %q; write one of %s", l.kind, strings.Join(names, ", "))
}

// laneOfRoom is how the appservice calls a room's lane; the outbox's lanes are the rooms.
const laneOfRoom = "room:"

func (l *letterFilter) query() store.LetterQuery {
	q := store.LetterQuery{Kind: l.kind}
	if l.room != "" {
		q.Lanes = []string{l.room, laneOfRoom + l.room}
	}
	return q
}

// wrong is a mistake in the command line.
func (p *program) wrong(format string, args ...any) int {
	fmt.Fprintf(p.stderr, format+"\n", args...)
	return exitWrong
}

// visit opens the database beside the bridge, does work and prints what goes wrong.
func (p *program) visit(work func(ctx context.Context, v *store.Visitor) (int, error)) int {
	cfg, status := p.load()
	if cfg == nil {
		return status
	}
	ctx := context.Background()
	opening, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	v, err := openBeside(opening, cfg)
	if err == nil {
		status, err = work(ctx, v)
		err = errors.Join(err, v.Close())
	}
	if err != nil {
		fmt.Fprintln(p.stderr, err) // it tells no password
		return exitFailed
	}
	return status
}

// openBeside opens the database of a bridge that may be running.
func openBeside(ctx context.Context, cfg *Config) (*store.Visitor, error) {
	v, err := store.Visit(ctx, cfg.Database)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("%w: the bridge has not run yet, or the setting database names another file than the bridge's", err)
	}
	return v, err
}

func (p *program) lettersList(f *flag.FlagSet) func() int {
	var filter letterFilter
	filter.define(f)
	limit := f.Int("limit", 50, "at most `N`")
	after := f.Int64("after", 0, "what comes after this `ID` in the list: its next page")
	oldest := f.Bool("oldest", false, "the oldest first")
	asJSON := f.Bool("json", false, "one JSON object a line, for programs")
	return func() int {
		if mistake := filter.mistake(); mistake != "" {
			return p.wrong("%s", mistake)
		} else if *limit < 1 || *after < 0 {
			return p.wrong("-limit must be 1 or more, and -after an ID")
		}
		q := filter.query()
		q.After, q.Newest, q.Limit = *after, !*oldest, *limit+1
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			letters, err := v.DeadLetters(ctx, q)
			if err != nil {
				return 0, err
			}
			more := len(letters) > *limit
			letters = letters[:min(len(letters), *limit)]
			if *asJSON {
				return exitOK, printLettersJSON(p.stdout, letters)
			}
			if err := printLetters(p.stdout, letters, time.Now()); err != nil {
				return 0, err
			}
			switch n, err := v.DeadLetterCount(ctx); {
			case err != nil:
				return 0, err
			case more:
				fmt.Fprintf(p.stdout, "\nThere are more (%s in all); the next page: -after %d\n", count(int(n), "dead letter"), letters[*limit-1].ID)
			case len(letters) == 0 && n > 0:
				fmt.Fprintf(p.stdout, "None of this kind and room (of %s in all).\n", count(int(n), "dead letter"))
			case len(letters) == 0:
				fmt.Fprintln(p.stdout, "There are no dead letters.")
			}
			return exitOK, nil
		})
	}
}

func (p *program) lettersShow(*flag.FlagSet) func() int {
	return func() int {
		ids, status := p.letterIDs()
		if status != exitOK {
			return status
		} else if len(ids) == 0 {
			return p.wrong("say which: deadletters show ID; deadletters list has the IDs")
		}
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			for i, id := range ids {
				letter, err := v.DeadLetter(ctx, id)
				if errors.Is(err, store.ErrNotFound) {
					fmt.Fprintf(p.stderr, "%s\n", noSuchLetter(id))
					status = exitFailed
					continue
				} else if err != nil {
					return 0, err
				}
				asked, err := v.Answer(ctx, id)
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					return 0, err
				}
				if i > 0 {
					fmt.Fprintln(p.stdout)
				}
				printLetter(p.stdout, letter, asked, time.Now())
			}
			return status, nil
		})
	}
}

func noSuchLetter(id int64) string {
	return fmt.Sprintf("there is no dead letter %d: it was replayed or dropped, or its time was over; see deadletters list", id)
}

// letterIDs reads the arguments.
func (p *program) letterIDs() (ids []int64, status int) {
	for _, arg := range p.args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return nil, p.wrong("%q is not the ID of a dead letter: that is a number; deadletters list has them", arg)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, exitOK
}

func (p *program) lettersReplay(f *flag.FlagSet) func() int {
	return p.lettersRequest(f, store.ActionReplay, nil)
}

func (p *program) lettersDrop(f *flag.FlagSet) func() int {
	return p.lettersRequest(f, store.ActionDrop, f.Bool("yes", false, "with -all: yes, forget them"))
}

// lettersRequest has the bridge do something with dead letters. With a yes, all of them only when it is true.
func (p *program) lettersRequest(f *flag.FlagSet, action string, yes *bool) func() int {
	var filter letterFilter
	filter.define(f)
	all := f.Bool("all", false, "every one, or every one of -kind and -room")
	wait := f.Duration("wait", 5*time.Second, "how long to wait for news of what becomes of them")
	return func() int {
		ids, status := p.letterIDs()
		switch mistake := filter.mistake(); {
		case status != exitOK:
			return status
		case mistake != "":
			return p.wrong("%s", mistake)
		case *all && len(ids) > 0:
			return p.wrong("write either IDs or -all")
		case !*all && len(ids) == 0:
			return p.wrong("say which: deadletters %s ID…, or -all; deadletters list has the IDs", action)
		case !*all && filter != letterFilter{}:
			return p.wrong("-kind and -room go with -all")
		}
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			r := &letterRequests{p: p, v: v, action: action, wait: *wait}
			if err := r.find(ctx, ids, filter); err != nil {
				return 0, err
			}
			if *all && len(r.letters) == 0 {
				fmt.Fprintf(p.stdout, "There is nothing to %s.\n", action)
				return exitOK, nil
			}
			if *all && yes != nil && !*yes {
				return p.wrong("this forgets %s for good; if you mean it, write -yes as well", count(len(r.letters), "dead letter")), nil
			}
			return r.run(ctx)
		})
	}
}
