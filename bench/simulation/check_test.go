//go:build failpoints

package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
)

// tally is what became of everything, over all seeds.
type tally struct {
	toMatrix, toNetwork, comings, dead, doubt, again, crashes, failed int
}

func (w *world) complain(format string, args ...any) {
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// letters are the dead letters of a store, by the event or by the text of what came from the network.
type letters map[string]store.DeadLetter

func sort(all []store.DeadLetter) letters {
	l := letters{}
	for _, letter := range all {
		key := letter.Key
		if _, rest, found := strings.Cut(string(letter.Body), `"body":"`); found && letter.Kind == "outbox" {
			key, _, _ = strings.Cut(rest, `"`)
		}
		l[key] = letter
	}
	return l
}

// open says what has not gone its way yet; nothing, when all has.
func (w *world) open(p *process) string {
	if !w.net.everythingTaken() {
		return "the bridge has not acknowledged everything from the network"
	}
	if as := w.hs.AppServiceState(w.cfg.Appservice.ID); as.Pending > 0 || as.Queued > 0 {
		return fmt.Sprintf("the homeserver has %d transactions and %d events left", as.Pending, as.Queued)
	}
	select {
	case <-p.bridge.Ready():
	default:
		return "the bridge is not ready"
	}
	all, err := p.bridge.DeadLetters(w.ctx, store.LetterQuery{Limit: 1000, Bodies: true})
	if err != nil {
		return err.Error()
	}
	dead := sort(all)
	w.net.mu.Lock()
	arrived := map[string]bool{}
	for _, a := range w.net.arrived {
		arrived[a.marker] = true
	}
	w.net.mu.Unlock()
	for _, x := range w.wrote {
		if _, isDead := dead[string(x.event)]; !arrived[x.marker] && !isDead && !x.redacted {
			return x.marker + " has not arrived"
		}
	}
	for i := range w.rooms {
		events, err := w.alice.Timeline(w.ctx, w.rooms[i])
		w.ok(err)
		seen := map[string]bool{}
		for _, ev := range events {
			seen[ev.Body()] = true
		}
		for _, in := range w.net.channels[fmt.Sprintf("channel%d", i)].said {
			if in.Text == nil || seen[in.Text.Body] {
				continue
			}
			if _, isDead := dead[in.Text.Body]; !isDead {
				return in.Text.Body + " has not arrived"
			}
		}
	}
	return ""
}

// check compares both ends with each other and with what is in the store, once nothing is under way any more.
func (w *world) check(database string, total *tally) {
	db, err := store.Open(w.ctx, "sqlite:"+database, store.Options{Log: zerolog.Nop()})
	w.ok(err)
	defer func() { w.ok(db.Close()) }()
	depth, err := db.Depth(w.ctx)
	w.ok(err)
	waiting := 0
	w.ok(db.Backlog(w.ctx, func(l store.LaneRefs) error { waiting += len(l.Refs); return nil }))
	if depth.Outbox > 0 || waiting > 0 {
		w.complain("%d rows of the outbox and %d events still wait in the store", depth.Outbox, waiting)
	}
	all, err := db.DeadLetters(w.ctx, store.LetterQuery{Limit: 1000, Bodies: true})
	w.ok(err)
	dead := sort(all)
	told := map[id.EventID]int{}
	for i, room := range w.rooms {
		events, err := w.alice.Timeline(w.ctx, room)
		w.ok(err)
		w.checkRoom(w.ctx, i, events, dead, told, total)
	}
	w.checkNetwork(dead, told, total)
	total.dead += len(all)
}

// checkRoom: everything said in the channel is in the room, once and in order, and answers what it answered.
func (w *world) checkRoom(ctx context.Context, room int, events []bridgetest.Event, dead letters, told map[id.EventID]int, total *tally) {
	count, byBody, said := map[string]int{}, map[string]bridgetest.Event{}, []string{}
	for _, ev := range events {
		switch {
		case ev.Sender == w.bot() && strings.HasPrefix(ev.Body(), "This message "):
			if told[ev.ReplyTo()]++; told[ev.ReplyTo()] == 2 {
				w.complain("alice was told twice: %s", ev.Body())
			}
		case ev.Type == "m.room.message" && strings.HasPrefix(ev.Body(), "n"):
			if count[ev.Body()]++; count[ev.Body()] == 2 {
				w.complain("doubled on Matrix: %s", ev.Body())
			} else if count[ev.Body()] == 1 {
				said, byBody[ev.Body()] = append(said, ev.Body()), ev
			}
		}
	}
	c := w.net.channels[fmt.Sprintf("channel%d", room)]
	var want []string
	ids := map[string]string{}
	for _, in := range c.said {
		if in.Text == nil {
			continue
		}
		body := in.Text.Body
		ids[in.ID] = body
		_, isDead := dead[body]
		if count[body] > 0 {
			want = append(want, body)
			total.toMatrix++
		} else if !isDead {
			w.complain("lost on the way to Matrix: %s", body)
		}
		if to := ids[in.Text.ReplyTo]; to != "" && count[to] > 0 && count[body] > 0 && byBody[body].ReplyTo() != byBody[to].ID {
			w.complain("%s does not answer %s but %q", body, to, byBody[body].ReplyTo())
		}
	}
	if !slices.Equal(said, want) {
		w.complain("reordered on Matrix: %v, and not %v", said, want)
	}
	w.checkComings(room, c.said, events, dead, total)
	members, err := w.alice.Members(ctx, w.rooms[room])
	w.ok(err)
	for _, who := range append(append([]string{}, people...), guests...) {
		ghost := w.ghost(who)
		if is := members[ghost] == "join"; is != c.in[who] {
			w.complain("%s is in channel%d: %v; its ghost in the room: %v", who, room, c.in[who], is)
		}
		if devices := w.hs.Devices(ghost); len(devices) > 1 {
			w.complain("%s has %d devices", ghost, len(devices))
		}
	}
}

func (w *world) ghost(who string) id.UserID {
	return id.NewUserID(w.cfg.Appservice.Ghosts+who, w.hs.Domain())
}

// checkComings: whoever says something on Matrix has come and gone there before as often as in the channel. What a list of members
// says may be overtaken by what was said after it.
func (w *world) checkComings(room int, said []*bridge.Incoming, events []bridgetest.Event, dead letters, total *tally) {
	for _, letter := range dead {
		if letter.Op == "join" || letter.Op == "leave" {
			w.complain("a coming or going is a dead letter: %s", letter.Cause)
			return
		}
	}
	left := map[id.UserID]int{}
	in := map[id.UserID]bool{}
	before := map[string]int{} // by message
	for _, ev := range events {
		switch who := ev.Target(); {
		case ev.Type == "m.room.member":
			if now := ev.Membership() == "join"; in[who] != now {
				if in[who] = now; !now {
					left[who]++
				}
				total.comings++
			}
		case ev.Type == "m.room.message":
			before[ev.Body()] = left[ev.Sender]
		}
	}
	least, most := map[string]int{}, map[string]int{}
	there, byList := map[string]bool{}, map[string]bool{}
	goes := func(who string, listed bool) {
		if there[who] {
			most[who]++
			if !listed && !byList[who] {
				least[who]++
			}
		}
		there[who] = false
	}
	for _, it := range said {
		who := it.Sender.ID
		switch {
		case it.Join != nil:
			there[who] = true
		case it.Leave != nil:
			goes(who, false)
		case it.Rename != nil:
			goes(it.Rename.From.ID, false)
			there[who] = true
		case it.Members != nil:
			list := map[string]bool{}
			for _, user := range it.Members.Users {
				list[user.ID] = true
			}
			for _, one := range append(append([]string{}, people...), guests...) {
				if list[one] {
					byList[one] = byList[one] || !there[one]
					there[one] = true
				} else {
					goes(one, true)
				}
			}
		case it.Text != nil:
			if n, ok := before[it.Text.Body]; ok && (n < least[who] || n > most[who]) {
				w.complain("%s says %s in room %d after leaving it %d times, and not %d to %d times", who, it.Text.Body, room, n, least[who], most[who])
			}
			there[who] = true
		}
		delete(byList, who) // who has said or done something since
	}
}

// checkNetwork: everything that alice wrote has arrived, as often as the session says, or she was told.
func (w *world) checkNetwork(dead letters, told map[id.EventID]int, total *tally) {
	n := w.net
	count, last := map[string]int{}, map[string]int{}
	ids := map[string]map[string]bool{}
	for _, a := range n.arrived {
		count[a.marker]++
		if ids[a.marker] == nil {
			ids[a.marker] = map[string]bool{}
		}
		ids[a.marker][a.id] = true
		if count[a.marker] > 1 {
			total.again++
			if !w.atLeastOnce {
				w.complain("doubled on the network: %s", a.marker)
			} else if a.unasked {
				w.complain("sent again without a reason: %s", a.marker)
			}
		} else if at := number(a.marker); !w.loose[a.marker] {
			if at < last[a.channel] {
				w.complain("reordered on the network: %s in %s", a.marker, a.channel)
			}
			last[a.channel] = at
		}
	}
	for _, x := range w.wrote {
		letter, isDead := dead[string(x.event)]
		switch {
		case isDead && told[x.event] != 1 && !strings.Contains(letter.Cause, "the process ended while this was under way"):
			w.complain("%s is a dead letter (%s), and alice was told %d times", x.marker, letter.Cause, told[x.event])
		case !isDead && told[x.event] > 0:
			w.complain("alice was told of %s, and it is no dead letter", x.marker)
		}
		switch {
		case isDead && letter.Doubt:
			total.doubt++
		case isDead && count[x.marker] > 0:
			w.complain("%s has arrived, and its dead letter does not say that it may have: %s", x.marker, letter.Cause)
		case isDead:
		case count[x.marker] > 0:
			total.toNetwork++
		case !x.redacted:
			w.complain("lost on the way to the network: %s", x.marker)
		}
		if x.answers == nil || count[x.marker] == 0 {
			continue
		}
		reply := n.replies[x.marker]
		_, unknown := dead[string(x.answers.event)]
		if reply == nil || reply.Event != x.answers.event || !unknown && !x.answers.redacted && !w.loose[x.marker] && !w.loose[x.answers.marker] && !ids[x.answers.marker][reply.RemoteID] {
			w.complain("%s answers %+v, and not %s", x.marker, reply, x.answers.marker)
		}
	}
}

func number(marker string) (n int) {
	_, text, _ := strings.Cut(marker, "-")
	_, _ = fmt.Sscan(text, &n)
	return n
}
