package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

func mediaSubcommands() []subcommand {
	return []subcommand{
		{name: "list", help: "the links there are", flags: (*program).mediaList},
		{name: "revoke", args: "ID…", help: "end links; or by -room, -event, -sender, -mxc; -all -yes: every one", flags: (*program).mediaRevoke},
		{name: "sign", args: "ID…", help: "make and print new links to the same files; of those that work, print them", flags: (*program).mediaSign},
		{name: "keys", help: "list, rotate or retire the keys that sign links", below: mediaKeySubcommands()},
	}
}

// mediaFilter is which links are meant.
type mediaFilter struct{ room, event, sender, mxc string }

func (m *mediaFilter) define(f *flag.FlagSet) {
	f.StringVar(&m.room, "room", "", "only those of this `ROOM`, by its ID (!abc:example.org)")
	f.StringVar(&m.event, "event", "", "only those of this `EVENT`")
	f.StringVar(&m.sender, "sender", "", "only those to what this `USER` sent")
	f.StringVar(&m.mxc, "mxc", "", "only those to this file (`mxc://server/id`)")
}

func (m *mediaFilter) scope() (sc store.MediaScope, mistake string) {
	sc = store.MediaScope{Room: m.room, Event: m.event, Sender: m.sender}
	if m.room != "" && m.room[0] != '!' {
		return sc, fmt.Sprintf("-room %q is not the ID of a room: that begins with !", m.room)
	}
	if m.sender != "" && m.sender[0] != '@' {
		return sc, fmt.Sprintf("-sender %q is not the ID of a user: that begins with @", m.sender)
	}
	if m.mxc != "" {
		uri, err := id.ParseContentURI(m.mxc)
		if err != nil || uri.IsEmpty() {
			return sc, fmt.Sprintf("-mxc %q is not the address of a file: write mxc://server/id", m.mxc)
		}
		sc.Server, sc.Media = uri.Homeserver, uri.FileID
	}
	return sc, ""
}

// recordIDs reads the arguments.
func (p *program) recordIDs() (ids []int64, status int) {
	for _, arg := range p.args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 1 {
			return nil, p.wrong("%q is not the ID of a link: that is a number; media list has them", arg)
		}
		ids = append(ids, n)
	}
	return ids, exitOK
}

func (p *program) mediaList(f *flag.FlagSet) func() int {
	var filter mediaFilter
	filter.define(f)
	limit := f.Int("limit", 50, "at most `N`")
	after := f.Int64("after", 0, "those after this `ID`: the next page")
	asJSON := f.Bool("json", false, "one JSON object a line, for programs")
	return func() int {
		sc, mistake := filter.scope()
		switch {
		case mistake != "":
			return p.wrong("%s", mistake)
		case *limit < 1 || *after < 0:
			return p.wrong("-limit must be 1 or more, and -after an ID")
		}
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			links, err := v.MediaLinks(ctx, sc, *after, *limit+1)
			if err != nil {
				return 0, err
			}
			more := len(links) > *limit
			links = links[:min(len(links), *limit)]
			if *asJSON {
				return exitOK, printLinksJSON(p.stdout, links, time.Now())
			}
			if len(links) == 0 {
				fmt.Fprintln(p.stdout, "There are no such links.")
			} else if err := printLinks(p.stdout, links, time.Now()); err != nil {
				return 0, err
			}
			if more {
				fmt.Fprintf(p.stdout, "\nThere are more; the next page: -after %d\n", links[len(links)-1].ID)
			}
			return exitOK, nil
		})
	}
}

// linkState is what has become of a link, in a word.
func linkState(m *store.Media, now time.Time) string {
	switch {
	case !m.Revoked.IsZero():
		return "revoked"
	case !m.Expires.IsZero() && !now.Before(m.Expires):
		return "expired"
	}
	return "live"
}

// printLinks prints a table. The links themselves are not in it: who has one has the file.
func printLinks(out io.Writer, links []store.Media, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tSTATE\tMADE\tEXPIRES\tROOM\tSENDER\tEVENT\tNAME\tFILE")
	for i := range links {
		m := &links[i]
		expires := "never"
		if !m.Expires.IsZero() {
			expires = m.Expires.Local().Format(letterTime)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, linkState(m, now), m.Created.Local().Format(letterTime), expires,
			orDash(m.Room), orDash(m.Sender), orDash(m.Event), orDash(m.Name), linkTarget(m))
	}
	return w.Flush()
}

// linkTarget is what a link leads to: a file, or a page.
func linkTarget(m *store.Media) string {
	if m.Kind != "" {
		return "page: " + m.Kind
	}
	return printable("mxc://" + m.Server + "/" + m.MediaID)
}

// listedLink is a link for programs.
type listedLink struct {
	ID      int64      `json:"id"`
	State   string     `json:"state"` // live, expired or revoked
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
	Revoked *time.Time `json:"revoked,omitempty"`
	Room    string     `json:"room,omitempty"`
	Event   string     `json:"event,omitempty"`
	Sender  string     `json:"sender,omitempty"`
	Name    string     `json:"name,omitempty"`
	MIME    string     `json:"mime,omitempty"`
	Size    int64      `json:"size,omitempty"`
	MXC     string     `json:"mxc,omitempty"`  // of a file
	Page    string     `json:"page,omitempty"` // text or gallery: it is no file
}

func printLinksJSON(out io.Writer, links []store.Media, now time.Time) error {
	set := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	enc := json.NewEncoder(out)
	for i := range links {
		m := &links[i]
		mxc := ""
		if m.Kind == "" {
			mxc = "mxc://" + m.Server + "/" + m.MediaID
		}
		if err := enc.Encode(&listedLink{ID: m.ID, State: linkState(m, now), Created: m.Created, Expires: set(m.Expires), Revoked: set(m.Revoked),
			Room: m.Room, Event: m.Event, Sender: m.Sender, Name: m.Name, MIME: m.MIME, Size: m.Size, MXC: mxc, Page: m.Kind}); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) mediaRevoke(f *flag.FlagSet) func() int {
	var filter mediaFilter
	filter.define(f)
	all := f.Bool("all", false, "every link there is")
	yes := f.Bool("yes", false, "with -all: yes, end them")
	return func() int {
		ids, status := p.recordIDs()
		sc, mistake := filter.scope()
		filtered := sc != store.MediaScope{}
		switch {
		case status != exitOK:
			return status
		case mistake != "":
			return p.wrong("%s", mistake)
		case (len(ids) > 0 && filtered) || (*all && (filtered || len(ids) > 0)):
			return p.wrong("write one of IDs, -all, or -room, -event, -sender and -mxc")
		case len(ids) == 0 && !filtered && !*all:
			return p.wrong("say which: media revoke ID…, or -room, -event, -sender, -mxc or -all; media list has the IDs")
		case *all && !*yes:
			return p.wrong("-all ends every link there is, for good; write -all -yes if that is meant")
		}
		scopes := []store.MediaScope{sc}
		if len(ids) > 0 {
			scopes = nil
		}
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			scopes, status := slices.Clone(scopes), exitOK
			for _, n := range ids {
				switch _, err := v.Media(ctx, n); {
				case errors.Is(err, store.ErrNotFound):
					fmt.Fprintf(p.stderr, "there is no link %d; see media list\n", n)
					status = exitFailed
				case err != nil:
					return 0, err
				default:
					scopes = append(scopes, store.MediaScope{Record: n})
				}
			}
			if len(scopes) == 0 {
				return status, nil
			}
			var total int64
			err := v.ChangeMedia(ctx, func(tx store.MediaTx) error {
				total = 0
				for _, sc := range scopes {
					n, err := tx.RevokeLinks(sc)
					if err != nil {
						return err
					}
					total += n
				}
				return nil
			})
			if err != nil {
				return 0, err
			}
			time.Sleep(proxy.ObeyedWithin)
			if total == 0 {
				fmt.Fprintln(p.stdout, "Revoked 0 links: no such link in the store works.")
			} else {
				fmt.Fprintf(p.stdout, "Revoked %s: no proxy answers them any more.\n", count(int(total), "link"))
			}
			return status, nil
		})
	}
}

const maxSigned = 1000 // links that one call makes

func (p *program) mediaSign(f *flag.FlagSet) func() int {
	var filter mediaFilter
	filter.define(f)
	return func() int {
		ids, status := p.recordIDs()
		sc, mistake := filter.scope()
		filtered := sc != store.MediaScope{}
		switch {
		case status != exitOK:
			return status
		case mistake != "":
			return p.wrong("%s", mistake)
		case (len(ids) > 0) == filtered:
			return p.wrong("say which: media sign ID…, or -room, -event, -sender or -mxc; media list has the IDs")
		}
		cfg, status := p.load()
		if cfg == nil {
			return status
		} else if cfg.Media.PublicURL == "" {
			return p.wrong("media.public_url is empty: without it there are no links")
		}
		return p.visit(func(ctx context.Context, v *store.Visitor) (int, error) {
			signer, err := newSigner(ctx, &cfg.Media, v)
			if err != nil {
				return 0, err
			}
			if filtered {
				links, err := v.MediaLinks(ctx, sc, 0, maxSigned)
				if err != nil {
					return 0, err
				}
				for _, m := range links {
					ids = append(ids, m.ID)
				}
			}
			worked := 0
			for _, n := range ids {
				if m, err := v.Media(ctx, n); err == nil && linkState(m, time.Now()) == "live" {
					worked++
				}
				link, err := signer.Again(ctx, n)
				switch {
				case errors.Is(err, store.ErrNotFound):
					fmt.Fprintf(p.stderr, "there is no link %d; see media list\n", n)
					status = exitFailed
				case errors.Is(err, proxy.ErrRedacted):
					fmt.Fprintf(p.stderr, "link %d: %v\n", n, proxy.ErrRedacted)
					status = exitFailed
				case err != nil:
					return 0, err
				default:
					fmt.Fprintf(p.stdout, "%d %s\n", n, link)
				}
			}
			if worked > 0 {
				fmt.Fprintf(p.stderr, "%s worked before and got no other; to replace a link, revoke it first\n", count(worked, "link"))
			}
			return status, nil
		})
	}
}
