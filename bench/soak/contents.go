package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
)

// contents are what a store has that waits or is dead.
type contents struct {
	outbox  []string // markers of messages from IRC
	rows    int      // of the outbox
	waiting int      // rows of the outbox, and events
	waits   []string // the latter
	letters []store.DeadLetter
}

var inPayload = regexp.MustCompile(`"body":"(i\d+-\d+)"`)

// look reads the store of a bridge that does not run. A file is copied first: the next process is to find it as the last one
// left it.
func look(ctx context.Context, database, dir string) (c *contents, err error) {
	if strings.HasPrefix(database, "sqlite:") {
		if database, err = copied(filepath.Join(dir, strings.TrimPrefix(database, "sqlite:")), dir); err != nil {
			return nil, err
		}
	}
	db, err := store.Open(ctx, database, store.Options{Log: zerolog.Nop()})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c = &contents{}
	if err := db.OutgoingBacklog(ctx, func(_ string, id int64) error {
		row, err := db.Outgoing(ctx, id)
		if err != nil {
			return err
		}
		c.rows++
		if m := inPayload.FindSubmatch(row.Payload); m != nil {
			c.outbox = append(c.outbox, string(m[1]))
		}
		return nil
	}); err != nil {
		return nil, err
	}
	c.waiting = c.rows
	if err := db.Backlog(ctx, func(l store.LaneRefs) error {
		c.waiting += len(l.Refs)
		for _, ref := range l.Refs {
			el, err := db.Element(ctx, ref)
			if err != nil {
				return err
			}
			c.waits = append(c.waits, fmt.Sprintf("%s %s (%d attempts, %s)", l.Lane, el.Raw, l.Attempts, l.Cause))
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for after := int64(0); ; {
		page, err := db.DeadLetters(ctx, store.LetterQuery{After: after, Limit: 1000, Bodies: true})
		if err != nil || len(page) == 0 {
			return c, err
		}
		c.letters = append(c.letters, page...)
		after = page[len(page)-1].ID
	}
}

// copied copies a SQLite database into a folder, and gives the URI of the copy.
func copied(database, dir string) (uri string, err error) {
	copied := filepath.Join(dir, "look.db")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(copied + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	for _, suffix := range []string{"", "-wal"} {
		if err := copyFile(database+suffix, copied+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "sqlite:" + copied, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
