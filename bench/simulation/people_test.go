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

// people are who talks on the network, and guests come and go with them.
var (
	people = []string{"bob", "carl", "dora"}
	guests = []string{"eve", "fred", "gina", "hugo"}
)

// talk is what people do in one channel of the network.
type talk struct {
	w       *world
	channel string
	room    int
	in      map[string]bool
	said    int
	lastID  string
}

// networkTalks is what people do in one channel of the network.
func (w *world) networkTalks(channel string, room, things int) {
	t := &talk{w: w, channel: channel, room: room, in: map[string]bool{}}
	everybody := append(append([]string{}, people...), guests...)
	for range things {
		r := w.about("people in " + channel)
		time.Sleep(upTo(r, spoken))
		who := people[r.IntN(len(people))]
		switch r.IntN(14) {
		case 0:
			t.leaves(who, "enough")
		case 1:
			t.joins(who)
		case 2: // a netsplit, in the middle of which somebody says something
			r.Shuffle(len(everybody), func(i, j int) { everybody[i], everybody[j] = everybody[j], everybody[i] })
			for n, one := range everybody {
				if n == len(everybody)/2 {
					t.says(who, r.IntN(4) == 0)
				}
				t.leaves(one, "*.net *.split")
			}
		case 3: // everybody comes, some with a word
			for _, one := range everybody {
				t.joins(one)
				if r.IntN(6) == 0 {
					t.says(one, false)
				}
			}
		case 4: // the bridge was away: who is there is not who was there
			list := &bridge.Members{}
			now := map[string]bool{}
			for _, one := range everybody {
				if now[one] = r.IntN(2) == 0; now[one] {
					list.Users = append(list.Users, bridge.RemoteUser{ID: one, Name: one})
				}
			}
			t.in = now
			w.says(&bridge.Incoming{Channel: channel, Members: list})
		case 5: // somebody comes and goes in no time, with words
			guest := guests[r.IntN(len(guests))]
			for range 2 {
				t.leaves(guest, "flood")
				t.joins(guest)
				t.says(guest, false)
			}
		case 6: // somebody is somebody else from now on
			to := guests[r.IntN(len(guests))]
			if !t.in[who] || t.in[to] {
				continue
			}
			t.in[who], t.in[to] = false, true
			w.says(&bridge.Incoming{Channel: channel, Sender: bridge.RemoteUser{ID: to, Name: to}, Rename: &bridge.Rename{From: bridge.RemoteUser{ID: who, Name: who}}})
		default:
			t.says(who, r.IntN(4) == 0)
		}
	}
	w.net.change(func() { w.net.channels[channel].in = t.in })
}

func (t *talk) joins(who string) {
	if !t.in[who] {
		t.in[who] = true
		t.w.says(&bridge.Incoming{Channel: t.channel, Sender: bridge.RemoteUser{ID: who, Name: who}, Join: &bridge.Join{}})
	}
}

func (t *talk) leaves(who, why string) {
	if t.in[who] {
		t.in[who] = false
		t.w.says(&bridge.Incoming{Channel: t.channel, Sender: bridge.RemoteUser{ID: who, Name: who}, Leave: &bridge.Leave{Reason: why}})
	}
}

func (t *talk) says(who string, answers bool) {
	t.said++
	in := &bridge.Incoming{
		Channel: t.channel, ID: fmt.Sprintf("%s-%d", t.channel, t.said), Sender: bridge.RemoteUser{ID: who, Name: who},
		Text: &bridge.Text{Kind: bridge.KindText, Body: fmt.Sprintf("n%d-%d", t.room, t.said)},
	}
	if answers {
		in.Text.ReplyTo = t.lastID
	}
	t.in[who], t.lastID = true, in.ID
	t.w.says(in)
}
