package soak

import (
	"fmt"
	"slices"

	"maunium.net/go/mautrix/id"
)

// written is something that alice wrote.
type written struct {
	marker   string
	event    id.EventID
	room     int
	lines    int        // more than one, if it is not 0
	redacted id.EventID // by this one
	reacted  bool
}

// load is what people do on both sides. All of it happens on the test's goroutine.
type load struct {
	*soak
	counter    int // of messages, on both sides
	wrote      []*written
	byRoom     [][]*written
	regulars   []string // on IRC, in every channel
	guests     []string // on IRC, the newest last
	guestCount int
	guestNames int // how many names guests have among them; 0: each has its own
	carolIn    map[int]bool
	said       int // on IRC, whether or not the bridge was there
	reactions  int
	joins      int
}

// people are those who do it; on IRC they are there from the start.
func (s *soak) people() *load {
	l := &load{soak: s, byRoom: make([][]*written, s.Rooms), carolIn: map[int]bool{}}
	for _, nick := range []string{"ann", "bob", "cid", "dee"} {
		l.enters(nick, s.channels)
		l.regulars = append(l.regulars, nick)
	}
	return l
}

// photo is a PNG of one pixel.
var photo = []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\nIDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND\xaeB`\x82")

// onMatrix does one thing on Matrix.
func (l *load) onMatrix() {
	room := l.rng.IntN(len(l.rooms))
	mine := l.byRoom[room]
	if len(mine) == 0 {
		l.writes(room, "m", func(marker string) (id.EventID, error) { return l.alice.SendText(l.ctx, l.rooms[room], marker) })
		return
	}
	earlier := mine[max(0, len(mine)-1-l.rng.IntN(5))]
	switch dice := l.rng.IntN(100); {
	case dice < 52:
		l.writes(room, "m", func(marker string) (id.EventID, error) { return l.alice.SendText(l.ctx, l.rooms[room], marker) })
	case dice < 60:
		l.writes(room, "m", func(marker string) (id.EventID, error) {
			return l.alice.SendText(l.ctx, l.rooms[room], fmt.Sprintf("%s\n%[1]s/2\n%[1]s/3", marker))
		}).lines = 3
	case dice < 68:
		l.writes(room, "m", func(marker string) (id.EventID, error) {
			return l.alice.SendReply(l.ctx, l.rooms[room], earlier.event, marker)
		})
	case dice < 76:
		l.writes(room, "m", func(marker string) (id.EventID, error) {
			return l.alice.SendEdit(l.ctx, l.rooms[room], earlier.event, marker)
		})
	case dice < 82:
		l.writes(room, "p", func(marker string) (id.EventID, error) {
			return l.alice.SendImage(l.ctx, l.rooms[room], marker+".png", "image/png", photo)
		})
	case dice < 89:
		if earlier.reacted { // a homeserver takes each once
			return
		}
		earlier.reacted = true
		_, err := l.alice.Send(l.ctx, l.rooms[room], "m.reaction", map[string]any{
			"m.relates_to": map[string]any{"rel_type": "m.annotation", "event_id": earlier.event, "key": "👍"},
		})
		l.ok(err)
		l.reactions++
	case dice < 95:
		if earlier.redacted == "" {
			var err error
			earlier.redacted, err = l.alice.Redact(l.ctx, l.rooms[room], earlier.event)
			l.ok(err)
		}
	default:
		if l.carolIn[room] {
			l.ok(l.carol.Leave(l.ctx, l.rooms[room]))
		} else {
			l.ok(l.carol.Join(l.ctx, l.rooms[room]))
		}
		l.carolIn[room] = !l.carolIn[room]
		l.joins++
	}
}

func (l *load) writes(room int, kind string, send func(marker string) (id.EventID, error)) *written {
	l.counter++
	w := &written{marker: fmt.Sprintf("%s%d-%d", kind, room, l.counter), room: room}
	var err error
	w.event, err = send(w.marker)
	l.ok(err)
	l.wrote = append(l.wrote, w)
	l.byRoom[room] = append(l.byRoom[room], w)
	return w
}

// onIRC does one thing on IRC.
func (l *load) onIRC() {
	room := l.rng.IntN(len(l.rooms))
	switch dice := l.rng.IntN(100); {
	case dice < 85:
		l.says(l.regulars[l.rng.IntN(len(l.regulars))], room)
	case dice < 95 || len(l.guests) == 0:
		l.guestCount++
		number := l.guestCount
		if l.guestNames > 0 {
			number %= l.guestNames
		}
		guest := fmt.Sprintf("guest%d", number)
		if slices.Contains(l.guests, guest) { // all names are taken: the oldest makes room
			l.ok(l.irc.Quit(l.guests[0]))
			l.guests = l.guests[1:]
			l.joins++
			return
		}
		l.enters(guest, l.channels[room:room+1])
		l.says(guest, room)
		l.guests = append(l.guests, guest)
		l.joins++
	default:
		l.ok(l.irc.Quit(l.guests[0]))
		l.guests = l.guests[1:]
		l.joins++
	}
}

func (l *load) says(nick string, room int) string {
	l.counter++
	marker := fmt.Sprintf("i%d-%d", room, l.counter)
	l.ok(l.irc.Say(nick, l.channels[room], marker))
	l.said++
	return marker
}

// enters has somebody come to the IRC server, into these channels.
func (l *load) enters(nick string, channels []string) { l.ok(l.irc.Enter(l.ctx, nick, channels)) }

// markerOf says which of ours an event of Matrix is.
func markerOf(ev Event) string {
	if ev.Type != "m.room.message" || !isMarker.MatchString(ev.Body()) {
		return ""
	}
	return ev.Body()
}

// onMatrixLast says one thing more in a room, and waits until it is on IRC.
func (l *load) onMatrixLast(room int) {
	w := l.writes(room, "m", func(marker string) (id.EventID, error) { return l.alice.SendText(l.ctx, l.rooms[room], marker) })
	l.ok(l.wire.wait(l.ctx, l.process.ended, w.marker+" is on IRC", func() bool {
		for i := len(l.wire.arrived) - 1; i >= 0; i-- {
			if l.wire.arrived[i].marker == w.marker {
				return true
			}
		}
		return false
	}))
}
