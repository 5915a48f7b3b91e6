package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

const (
	sentPage = 100
	// sentPages bounds a search without end: what is looked for is among the newest.
	sentPages = 50
)

// sentEvent is what of an event in a room's history has to be known.
type sentEvent struct {
	ID        id.EventID      `json:"event_id"`
	Sender    id.UserID       `json:"sender"`
	Timestamp int64           `json:"origin_server_ts"`
	Content   json.RawMessage `json:"content"`
}

// FindSent looks for an event that the user has sent into a room, from the newest backwards until since, and returns its ID,
// or "" when there is none. is says of an event's content whether it is the one. Where the user does not see the room, the bot
// looks. A search is good for what was sent while another instance of the homeserver ran, or is answered by now: what a
// homeserver is still working on is not in the room yet.
func (i *Intent) FindSent(ctx context.Context, room id.RoomID, since time.Time, is func(content json.RawMessage) bool) (id.EventID, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return "", err
	}
	found, err := i.findSent(ctx, i, room, since, is)
	if errorStatus(err) == http.StatusForbidden && i.user != i.as.botID {
		found, err = i.findSent(ctx, i.as.Bot(), room, since, is)
	}
	if errorStatus(err) == http.StatusForbidden && !isRefusal(err) {
		return "", nil // neither is in the room, or ever was
	}
	if err != nil {
		return "", fmt.Errorf("look in %s for what %s sent: %w", room, i.user, i.as.explain(err))
	}
	return found, nil
}

func (i *Intent) findSent(ctx context.Context, reader *Intent, room id.RoomID, since time.Time, is func(json.RawMessage) bool) (id.EventID, error) {
	filter, err := json.Marshal(map[string]any{"senders": []id.UserID{i.user}})
	if err != nil {
		return "", err
	}
	query := map[string]string{"dir": "b", "limit": strconv.Itoa(sentPage), "filter": string(filter)}
	cli := reader.client("")
	for range sentPages {
		var page struct {
			Chunk []sentEvent `json:"chunk"`
			End   string      `json:"end"`
		}
		url := cli.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", room, "messages"}, query)
		if _, err := cli.MakeRequest(withRepeat(ctx), http.MethodGet, url, nil, &page); err != nil {
			return "", err
		}
		for _, ev := range page.Chunk {
			if ev.Sender == i.user && is(ev.Content) {
				return ev.ID, nil
			}
			if time.UnixMilli(ev.Timestamp).Before(since) {
				return "", nil
			}
		}
		if page.End == "" || page.End == query["from"] {
			return "", nil
		}
		query["from"] = page.End
	}
	return "", nil
}

// Event reads one event of a room that the user is in. When there is none that the user sees, errors.Is(err, mautrix.MNotFound).
func (i *Intent) Event(ctx context.Context, room id.RoomID, ev id.EventID) (raw json.RawMessage, err error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	cli := i.client("")
	if _, err := cli.MakeRequest(withRepeat(ctx), http.MethodGet, cli.BuildClientURL("v3", "rooms", room, "event", ev), nil, &raw); err != nil {
		return nil, fmt.Errorf("read %s in %s as %s: %w", ev, room, i.user, i.as.explain(err))
	}
	if len(raw) == 0 {
		return nil, errors.New("the homeserver answered with nothing")
	}
	return raw, nil
}
