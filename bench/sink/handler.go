package main

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/internal/soundjson"
	"github.com/trestle-bridge/trestle/store"
)

// handler writes every room event into the ledger, one row for all events of a lane that share a commit.
//
// An event cannot know which others its commit will hold, so the row is left to the effect of the last event of the lane
// that was handled: the framework commits what it has of a lane together. If ever it did not, an event would be missing
// in the ledger for as long as the next one of its room; a count can come out wrong that way, but never right by mistake.
type handler struct {
	decode  bool // take every event apart as bridges do, instead of looking for content.n alone
	each    bool // write a row for every event as bridges do, instead of one for each lane and commit
	handled atomic.Int64

	mu    sync.Mutex
	lanes map[string][]open // of handled events that are not durable
}

type open struct {
	id string
	entry
}

var _ appservice.Handler = (*handler)(nil)

func newHandler(decode, each bool) *handler {
	return &handler{decode: decode, each: each, lanes: map[string][]open{}}
}

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
	room, id := ev.RoomID.String(), ev.ID.String()
	if h.each {
		one := []entry{newEntry(id, number(ev.Raw))}
		return []appservice.Effect{func(tx *store.Tx) error {
			tx.AfterCommit(func() { h.handled.Add(1) })
			return writeRow(tx, room, one)
		}}, nil
	}
	h.add(room, open{id: id, entry: newEntry(id, number(ev.Raw))})
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

// number gives content.n, or 0 when it is no whole number. What a handler is given is sound JSON.
func number(raw []byte) int64 {
	n, err := strconv.ParseInt(string(member(member(raw, `"content"`), `"n"`)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func member(object []byte, wanted string) []byte {
	if len(object) == 0 || object[0] != '{' {
		return nil
	}
	for name, value := range soundjson.Members(object) {
		if string(name) == wanted {
			return value
		}
	}
	return nil
}
