//go:build failpoints

package simulation

import (
	"fmt"
	"net/url"
	"regexp"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// written is something that alice wrote.
type written struct {
	marker   string
	room     int
	event    id.EventID
	answers  *written // what it replies to
	redacted bool
}

// spoken is the time between two things that somebody does, at most.
const spoken = 15 * time.Second

// onMatrix is what alice does.
func (w *world) aliceTalks() {
	byRoom := make([][]*written, len(w.rooms))
	restart := -1
	if w.restart {
		restart = w.about("the restart").IntN(w.character.onMatrix)
	}
	for i := range w.character.onMatrix {
		r := w.about("alice")
		time.Sleep(upTo(r, spoken))
		if r.IntN(100) < w.pushes {
			w.disturbPush()
		}
		if i == restart {
			w.restartHomeserver()
		}
		room := r.IntN(len(w.rooms))
		now := &written{marker: fmt.Sprintf("m%d-%d", room, i+1), room: room}
		kind := r.IntN(10)
		var last *written
		if n := len(byRoom[room]); n == 0 {
			kind = 0
		} else {
			last = byRoom[room][n-1]
		}
		var err error
		switch kind {
		case 6, 7:
			now.answers = last
			now.event, err = w.alice.SendReply(w.ctx, w.rooms[room], last.event, now.marker)
		case 8:
			now.event, err = w.alice.SendEdit(w.ctx, w.rooms[room], last.event, now.marker)
		case 9:
			if !last.redacted {
				last.redacted = true
				_, err := w.alice.Redact(w.ctx, w.rooms[room], last.event, "")
				w.ok(err)
			}
			continue
		default:
			now.event, err = w.alice.SendText(w.ctx, w.rooms[room], now.marker)
		}
		w.ok(err)
		w.note("alice writes %s", now.marker)
		byRoom[room] = append(byRoom[room], now)
		w.net.change(func() { w.wrote = append(w.wrote, now) })
	}
}

// nudge has alice say one thing more, in a transaction that fails at first. A Synapse that was restarted sends what was under
// way, or waited for a bridge that was away, only then.
func (w *world) nudge() {
	w.hs.PushFault(bridgetest.PushFault{Path: regexp.MustCompile("^" + url.PathEscape("transactions") + "/"), CutRequest: true})
	now := &written{marker: fmt.Sprintf("m0-%d", w.character.onMatrix+1)}
	var err error
	now.event, err = w.alice.SendText(w.ctx, w.rooms[0], now.marker)
	w.ok(err)
	w.note("alice writes %s", now.marker)
	w.net.change(func() { w.wrote = append(w.wrote, now) })
}

// restartHomeserver cuts off the transaction under way, if there is one. Synapse sends that one again only when a later one has
// failed, so what is in it may come out of order.
func (w *world) restartHomeserver() {
	w.net.change(func() {
		if as := w.hs.AppServiceState(w.cfg.Appservice.ID); as.Pending > 0 || as.Queued > 0 {
			arrived := map[string]bool{}
			for _, a := range w.net.arrived {
				arrived[a.marker] = true
			}
			for _, x := range w.wrote {
				w.loose[x.marker] = !arrived[x.marker]
			}
		}
		w.hs.Restart()
	})
	w.note("the homeserver is restarted")
}

var people = []string{"bob", "carl", "dora"}

// networkTalks is what people do in one channel of the network.
func (w *world) networkTalks(channel string, room, things int) {
	in := map[string]bool{}
	lastID := ""
	for i := range things {
		r := w.about("people in " + channel)
		time.Sleep(upTo(r, spoken))
		who := people[r.IntN(len(people))]
		incoming := &bridge.Incoming{Channel: channel, ID: fmt.Sprintf("%s-%d", channel, i+1), Sender: bridge.RemoteUser{ID: who, Name: who}}
		switch kind := r.IntN(10); {
		case kind == 0 && in[who]:
			incoming.Leave, in[who] = &bridge.Leave{Reason: "enough"}, false
		case kind == 1 && !in[who]:
			incoming.Join, in[who] = &bridge.Join{}, true
		default:
			incoming.Text = &bridge.Text{Kind: bridge.KindText, Body: fmt.Sprintf("n%d-%d", room, i+1)}
			if r.IntN(4) == 0 {
				incoming.Text.ReplyTo = lastID
			}
			in[who], lastID = true, incoming.ID
		}
		w.net.says(incoming)
	}
	w.net.change(func() { w.net.channels[channel].in = in })
}
