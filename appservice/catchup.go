package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const (
	catchUpFirst = 20 // events asked for at first: mostly there is nothing
	catchUpPage  = 100
	catchUpPages = 20
	// catchUpEarlier is how many events in a row must be from before to say that all earlier ones are: the clocks of other servers may be slow.
	catchUpEarlier = 10
)

// pastEvent is what of an event in a room's history has to be known.
type pastEvent struct {
	Type      string    `json:"type"`
	Sender    id.UserID `json:"sender"`
	StateKey  *string   `json:"state_key"`
	Timestamp int64     `json:"origin_server_ts"`
	Content   struct {
		Membership string `json:"membership"`
	} `json:"content"`
	Unsigned struct {
		PrevContent struct {
			Membership string `json:"membership"`
		} `json:"prev_content"`
		RedactedBecause json.RawMessage `json:"redacted_because"`
	} `json:"unsigned"`
}

// CatchUp takes in what others did in a room from since until until, as the user sees it, and no transaction has brought; fresh is how much that was. It goes the
// way of every transaction, so that what came or comes by one is known and happens once. until may be zero, for now. What was redacted, and state that
// has changed since, is left out, and so is all from before the user joined. Where there is more than 2,000 events nothing is taken: what is taken must be in order.
func (i *Intent) CatchUp(ctx context.Context, room id.RoomID, since, until time.Time) (fresh int, err error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return 0, err
	}
	past, err := i.past(ctx, room, since, until)
	if err != nil {
		return 0, fmt.Errorf("read the history of %s as %s: %w", room, i.user, i.as.explain(err))
	}
	if len(past) == 0 {
		return 0, nil
	}
	var body bytes.Buffer
	body.WriteString(`{"events":[`)
	for n := len(past) - 1; n >= 0; n-- {
		body.Write(past[n])
		if n > 0 {
			body.WriteByte(',')
		}
	}
	body.WriteString(`]}`)
	t, _ := i.as.takeApart("history of "+storable(string(room)), body.Bytes())
	if fresh, err = i.as.takeIn(ctx, t); err != nil {
		return 0, fmt.Errorf("take in the history of %s: %w", room, err)
	}
	return fresh, nil
}

// past reads a room's history from now backwards, the newest first.
func (i *Intent) past(ctx context.Context, room id.RoomID, since, until time.Time) (past []json.RawMessage, err error) {
	query := map[string]string{"dir": "b", "limit": strconv.Itoa(catchUpFirst)}
	cli := i.client("")
	changed := map[[2]string]bool{} // state
	earlier := 0
	for range catchUpPages {
		var page struct {
			Chunk []json.RawMessage `json:"chunk"`
			End   string            `json:"end"`
		}
		url := cli.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", room, "messages"}, query)
		if _, err := cli.MakeRequest(withRepeat(ctx), http.MethodGet, url, nil, &page); err != nil {
			return nil, err
		}
		for _, raw := range page.Chunk {
			var ev pastEvent
			if json.Unmarshal(raw, &ev) != nil {
				continue
			}
			at := time.UnixMilli(ev.Timestamp)
			if at.Before(since) {
				if earlier++; earlier == catchUpEarlier {
					return past, nil
				}
			} else {
				earlier = 0
			}
			joined := ev.Type == event.StateMember.Type && ev.StateKey != nil && *ev.StateKey == string(i.user) &&
				ev.Content.Membership == "join" && ev.Unsigned.PrevContent.Membership != "join"
			old := false
			if ev.StateKey != nil {
				key := [2]string{ev.Type, *ev.StateKey}
				old, changed[key] = changed[key], true
			}
			switch {
			case joined:
				return past, nil
			case old || ev.Unsigned.RedactedBecause != nil || i.as.isOwn(ev.Sender) || at.Before(since) || !until.IsZero() && at.After(until):
			default:
				past = append(past, raw)
			}
		}
		if page.End == "" || page.End == query["from"] {
			return past, nil
		}
		query["from"], query["limit"] = page.End, strconv.Itoa(catchUpPage)
	}
	return nil, Permanent(fmt.Errorf("there is more since %s than is read", since.Format(time.RFC3339)))
}
