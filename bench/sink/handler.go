package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// handler writes every room event into the ledger, one row for all events of a lane that share a commit.
//
// An event cannot know which others its commit will hold, so the row is left to the effect of the last event of the lane
// that was handled: the framework commits what it has of a lane together. If ever it did not, an event would be missing
// in the ledger for as long as the next one of its room; a count can come out wrong that way, but never right by mistake.
type handler struct {
	decode  bool // take every event apart as bridges do, instead of looking for content.n alone
	handled atomic.Int64

	mu    sync.Mutex
	lanes map[string][]open // of handled events that are not durable
}

type open struct {
	id string
	entry
}

var _ appservice.Handler = (*handler)(nil)

func newHandler(decode bool) *handler { return &handler{decode: decode, lanes: map[string][]open{}} }

// HandleEvent implements [appservice.Handler].
func (h *handler) HandleEvent(_ context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if ev.Kind != store.KindPDU {
		return nil, nil
	}
	if h.decode {
		if _, err := ev.Decode(); err != nil {
			return nil, err
		}
	}
	n, err := number(ev.Raw)
	if err != nil {
		return nil, appservice.Permanent(fmt.Errorf("read content.n: %w", err))
	}
	room, id := ev.RoomID.String(), ev.ID.String()
	h.add(room, open{id: id, entry: newEntry(id, n)})
	return []appservice.Effect{func(tx *store.Tx) error { return h.write(tx, room, id) }}, nil
}

// HandleEphemeral implements [appservice.Handler].
func (h *handler) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

func (h *handler) add(room string, o open) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.lanes[room]
	for i := range list {
		if list[i].id == o.id { // handled again: what came of the first time was not committed
			list = list[:i]
			break
		}
	}
	h.lanes[room] = append(list, o)
}

// write is the effect of one event.
func (h *handler) write(tx *store.Tx, room, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.lanes[room]
	if len(list) == 0 || list[len(list)-1].id != id {
		return nil
	}
	entries := make([]entry, len(list))
	for i := range list {
		entries[i] = list[i].entry
	}
	if err := writeRow(tx, room, entries); err != nil {
		return err
	}
	tx.AfterCommit(func() { h.written(room, len(entries)) })
	return nil
}

func (h *handler) written(room string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if list := h.lanes[room]; len(list) > n {
		h.lanes[room] = list[n:]
	} else {
		delete(h.lanes, room)
	}
	h.handled.Add(int64(n))
}

// number gives content.n, or 0 when it is no number. It reads no further than it must.
func number(raw []byte) (n int64, err error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for _, name := range []string{`"content"`, `"n"`} {
		if dec.PeekKind() != '{' {
			return 0, nil
		}
		if _, err = dec.ReadToken(); err != nil {
			return 0, err
		}
		for {
			if dec.PeekKind() == '}' {
				return 0, nil
			}
			found, err := dec.ReadValue()
			if err != nil {
				return 0, err
			}
			if string(found) == name {
				break
			}
			if err = dec.SkipValue(); err != nil {
				return 0, err
			}
		}
	}
	if dec.PeekKind() != '0' {
		return 0, nil
	}
	token, err := dec.ReadToken()
	if err != nil {
		return 0, err
	}
	if n, err = token.Int(); err != nil {
		return 0, nil // it has a fraction, or is too large
	}
	return n, nil
}
