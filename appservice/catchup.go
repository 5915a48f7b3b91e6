package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

const (
	catchUpFirst = 20 // events asked for at first: mostly there is nothing
	catchUpPage  = 100
	catchUpPages = 20
	catchUpBytes = 16 << 20 // of events in memory, which may be of 64 KiB each, and more with what the homeserver adds
	// Of a room in which nothing has been said for long, nothing is remembered. catchUpEarlier is how many events of the homeserver's own users in a row must be older
	// than catchUpSkew before the time to say that all earlier ones are. When an event of another server happened that server says as it likes.
	catchUpEarlier = 10
	catchUpSkew    = time.Hour
)

// pastEvent is what of an event in a room's history has to be known.
type pastEvent struct {
	ID        id.EventID `json:"event_id"`
	Room      id.RoomID  `json:"room_id"`
	Type      string     `json:"type"`
	Sender    id.UserID  `json:"sender"`
	StateKey  *string    `json:"state_key"`
	Timestamp int64      `json:"origin_server_ts"`
	Content   struct {
		Membership string `json:"membership"`
	} `json:"content"`
	Unsigned struct {
		RedactedBecause json.RawMessage `json:"redacted_because"`
		PrevContent     struct {
			Membership string `json:"membership"`
		} `json:"prev_content"`
	} `json:"unsigned"`

	raw    json.RawMessage
	sight  store.Sight
	dim    bool // it may have been taken in so long ago that it is forgotten, and counts as seen
	before bool // the bridge's users came
}

// CatchUp takes in what happened in a room, as the user sees it, and no transaction has brought: everything after the newest event that was taken in before since,
// in the order of the room's history. It goes the way of a transaction, so that what came or comes by one happens once; fresh is how much that was. A message that
// was redacted, and state that newer state had overtaken that is known already, is only known from then on: it may still come. What happened before the bridge's
// users came into the room is left out. Without such an event among the newest 1,920, or 16 MiB, and with as many since then, nothing is taken: the order would
// not be sure. A transaction that brings something of the room meanwhile waits, up to 5 s.
func (i *Intent) CatchUp(ctx context.Context, room id.RoomID, since time.Time) (fresh int, err error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return 0, err
	}
	unlock, err := i.as.locks.Lock(ctx, "history of "+string(room))
	if err != nil {
		return 0, err
	}
	defer unlock()
	defer i.as.readings.begin(roomLane + string(room))()
	past, err := i.past(ctx, room, since)
	if err != nil {
		return 0, fmt.Errorf("read the history of %s as %s: %w", room, i.user, i.as.explain(err))
	}
	t := i.as.asPast(room, past)
	if t == nil {
		return 0, nil
	}
	if fresh, err = i.as.takeNew(ctx, t); err != nil {
		return 0, fmt.Errorf("take in the history of %s: %w", room, err)
	}
	return fresh, nil
}

// asPast makes of events, the newest first, a transaction; nil when all are known.
func (as *AppService) asPast(room id.RoomID, past []*pastEvent) *store.Transaction {
	var body bytes.Buffer
	inert, after, newer := map[string]bool{}, map[string][]string{}, map[[2]string][]string{}
	for _, ev := range past { // the newest first
		if ev.StateKey == nil {
			inert[string(ev.ID)] = len(ev.Unsigned.RedactedBecause) > 0
			continue
		}
		key := [2]string{ev.Type, *ev.StateKey}
		after[string(ev.ID)] = newer[key]
		newer[key] = append(newer[key], string(ev.ID))
	}
	unknown := false
	for n := len(past) - 1; n >= 0; n-- {
		if past[n].sight != 0 || past[n].before {
			continue
		}
		if unknown {
			body.WriteByte(',')
		} else {
			body.WriteString(`{"events":[`)
		}
		unknown = true
		body.Write(past[n].raw)
	}
	if !unknown {
		return nil
	}
	body.WriteString(`]}`)
	t, _ := as.takeApart("history of "+storable(string(room)), body.Bytes())
	for n := range t.Elements {
		el := &t.Elements[n]
		el.Inert, el.InertAfter = inert[el.Key], after[el.Key]
	}
	return t
}

// past reads a room's history from now backwards to where all is known, the newest first.
func (i *Intent) past(ctx context.Context, room id.RoomID, since time.Time) (past []*pastEvent, err error) {
	query := map[string]string{"dir": "b", "limit": strconv.Itoa(catchUpFirst)}
	cli := i.client("")
	var old []int // where the last ones are that say so
	size := 0
	for range catchUpPages {
		var page struct {
			Chunk []json.RawMessage `json:"chunk"`
			End   string            `json:"end"`
		}
		url := cli.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", room, "messages"}, query)
		if _, err := cli.MakeRequest(withRepeat(ctx), http.MethodGet, url, nil, &page); err != nil {
			return nil, err
		}
		events, err := i.as.sights(ctx, room, page.Chunk, since)
		if err != nil {
			return nil, err
		}
		for _, ev := range events {
			if ev.sight == store.SeenBefore {
				return i.sinceOurs(past, ev, false), nil
			}
			past = append(past, ev)
			if size += len(ev.raw); size > catchUpBytes {
				return nil, tooMuch(past, since)
			}
			switch {
			case !ev.dim && !time.UnixMilli(ev.Timestamp).Before(since.Add(-catchUpSkew)):
				old = nil
			case (ev.dim || ev.sight == 0) && strings.HasSuffix(string(ev.Sender), i.as.lapses.local):
				old = append(old, len(past)-1)
			}
			if len(old) == catchUpEarlier {
				return i.sinceOurs(past, nil, false)[:old[0]], nil
			}
		}
		if page.End == "" || page.End == query["from"] {
			end := len(past)
			if len(old) > 0 {
				end = old[0]
			}
			return i.sinceOurs(past, nil, true)[:end], nil
		}
		query["from"], query["limit"] = page.End, strconv.Itoa(catchUpPage)
	}
	return nil, tooMuch(past, since)
}

func tooMuch(past []*pastEvent, since time.Time) error {
	return Permanent(fmt.Errorf("none of its newest %d events was known before %s", len(past), since.Format(time.RFC3339)))
}

// sights reads events, and says which are known. When more has come since then than is remembered, nothing from before what is remembered is news.
func (as *AppService) sights(ctx context.Context, room id.RoomID, chunk []json.RawMessage, since time.Time) (events []*pastEvent, err error) {
	var keys []string
	for _, raw := range chunk {
		ev := &pastEvent{raw: raw}
		_ = jsonv2.Unmarshal(raw, ev, exactNames) // what people wrote into it may be of any type, and leaves the rest as it is
		if ev.ID == "" || ev.Room != room {
			as.log.Warn().Stringer("room_id", room).Str("event_id", storable(string(ev.ID))).Msg("What the homeserver gives as an event of a room's history is none of it, and is left out")
			continue
		}
		events, keys = append(events, ev), append(keys, string(ev.ID))
	}
	var sights []store.Sight
	var remembered time.Time
	err = as.store.Commit(ctx, as.epoch, func(tx *store.Tx) (err error) {
		sights, err = tx.Sights(store.KindPDU, keys, since)
		remembered = tx.RememberedSince()
		return err
	})
	if err != nil {
		return nil, err
	}
	for n, ev := range events {
		ev.sight = sights[n]
		if ev.dim = ev.sight == 0 && remembered.After(since) && time.UnixMilli(ev.Timestamp).Before(remembered); ev.dim {
			ev.sight = store.Seen
		}
	}
	return events, nil
}
