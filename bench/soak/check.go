package soak

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

var isMarker = regexp.MustCompile(`^[imp]\d+-\d+$`)

// tally is what became of everything in one direction.
type tally struct {
	sent, delivered, dead, doubt, again, redacted, missed, late, forgotten int
	lost, doubled, reordered                                               []string
	links, took                                                            int // connections of the bridge, and those that have taken something in
}

func (t *tally) String() string {
	return fmt.Sprintf("sent %d, delivered %d, dead %d, in doubt %d, sent again %d, redacted before %d, not taken in %d, came late from the homeserver %d, never sent by the homeserver %d, lost %d, doubled %d, reordered %d",
		t.sent, t.delivered, t.dead, t.doubt, t.again, t.redacted, t.missed, t.late, t.forgotten, len(t.lost), len(t.doubled), len(t.reordered))
}

// checker compares both ends with the store, once nothing is under way any more.
type checker struct {
	*load
	store    *contents
	timeline [][]Event
	letters  map[string]store.DeadLetter // by the event, or by the marker of what came from IRC
	wrong    []string
}

func (c *checker) complain(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// check gives what is wrong.
func (s *soak) check(l *load, left *contents) []string {
	c := &checker{load: l, store: left, letters: map[string]store.DeadLetter{}}
	for _, room := range s.rooms {
		events, err := s.alice.Timeline(s.ctx, room)
		s.ok(err)
		c.timeline = append(c.timeline, events)
	}
	for _, letter := range left.letters {
		key := letter.Key
		if m := inPayload.FindSubmatch(letter.Body); m != nil && letter.Kind == "outbox" {
			key = string(m[1])
		}
		c.letters[key] = letter
	}
	toMatrix, toIRC := c.toMatrix(), c.toIRC()
	s.Logf("IRC to Matrix: %s", toMatrix)
	c.takenIn(toMatrix)
	s.Logf("Matrix to IRC (%s): %s", s.Delivery, toIRC)
	for direction, t := range map[string]*tally{"to Matrix": toMatrix, "to IRC": toIRC} {
		for what, markers := range map[string][]string{"lost": t.lost, "doubled": t.doubled, "reordered": t.reordered} {
			if len(markers) > 0 {
				c.complain("%s %s: %v", what, direction, markers)
			}
		}
		if t.delivered == 0 {
			c.complain("nothing at all was delivered %s", direction)
		}
	}
	if reader, ok := s.alice.(Reader); ok {
		c.wrong = append(c.wrong, reader.Wrong(s.rooms)...)
	}
	if left.waiting != 0 {
		c.complain("%d things still wait in the store: %v", left.waiting, left.waits)
	}
	c.members()
	c.links()
	return c.wrong
}

// toMatrix: what a connection of the bridge was given came to Matrix once, in order, and without a gap. Its end alone may be
// missing, where a process was killed before it had stored it: IRC has no acknowledgements. What was in a store after a kill,
// and everything that the last process was given, must be there.
func (c *checker) toMatrix() *tally {
	t := &tally{}
	count := map[string]int{}
	for _, events := range c.timeline {
		last, answers := 0, map[string]int{}
		for _, ev := range events {
			if to := ev.ReplyTo(); to != "" && ev.Sender == c.bot {
				answer := string(to) + " " + ev.Body()
				if answers[answer]++; answers[answer] == 2 {
					t.doubled = append(t.doubled, "notice: "+answer)
				}
			}
			marker := markerOf(ev)
			if !strings.HasPrefix(marker, "i") {
				continue
			}
			if count[marker]++; count[marker] == 2 {
				t.doubled = append(t.doubled, marker)
			}
			if n := number(marker); n < last {
				t.reordered = append(t.reordered, marker)
			} else {
				last = n
			}
		}
	}
	arrived := func(marker string) bool {
		if count[marker] > 0 {
			return true
		}
		_, dead := c.letters[marker]
		return dead
	}
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	for i, l := range c.wire.links {
		stored := -1 // the last that must have been stored
		for at, marker := range l.given {
			if arrived(marker) || c.taken[marker] {
				stored = at
			}
		}
		if len(l.given) > 0 {
			t.links++
		}
		if stored >= 0 {
			t.took++
		}
		if i == c.last {
			stored = len(l.given) - 1
		}
		for at, marker := range l.given {
			t.sent++
			_, dead := c.letters[marker]
			switch {
			case count[marker] > 0:
				t.delivered++
				if dead {
					t.doubt++ // given up, and there all the same
				}
			case dead:
				t.dead++
			case at <= stored:
				t.lost = append(t.lost, marker)
			default:
				t.missed++
			}
		}
	}
	return t
}

// takenIn complains when the processes were killed before they had taken in enough from IRC to show anything of its way to Matrix: half of them wait for that.
func (c *checker) takenIn(t *tally) {
	in := t.sent - t.missed
	c.Logf("taken in from IRC: %d of %d messages (%d %%), by %d of %d connections that were given any", in, t.sent, 100*in/max(t.sent, 1), t.took, t.links)
	if 2*t.took < c.Kills {
		c.complain("only %d connections took in anything from IRC, and %d processes were killed: that shows too little of its way to Matrix", t.took, c.Kills)
	}
}

// number is greater the later something was written; of a message of several lines, the later the line is.
func number(marker string) int {
	var n, line int
	_, text, _ := strings.Cut(marker, "-")
	_, _ = fmt.Sscanf(text, "%d/%d", &n, &line)
	return 10*n + line
}

// toIRC: everything that alice wrote is on IRC once, or, at most once, is a dead letter of which she was told in the room. At
// least once it may be there again, from another process than before, which was killed while it was under way.
func (c *checker) toIRC() *tally {
	t := &tally{}
	count := map[string]int{}
	by := map[string]*link{}
	first := map[string][]line{} // by channel, without what was sent again
	c.wire.mu.Lock()
	for _, l := range c.wire.arrived {
		if count[l.marker]++; count[l.marker] == 1 {
			first[l.channel] = append(first[l.channel], l)
		} else {
			t.again++
			if c.Delivery == atMostOnce || by[l.marker] == l.link {
				t.doubled = append(t.doubled, l.marker)
			}
		}
		by[l.marker] = l.link
	}
	c.wire.mu.Unlock()
	for _, lines := range first {
		c.inOrder(t, lines)
	}
	told := map[id.EventID]int{}
	for _, events := range c.timeline {
		for _, ev := range events {
			if ev.Sender == c.bot && strings.HasPrefix(ev.Body(), "This message ") {
				told[ev.ReplyTo()]++
			}
		}
	}
	for _, w := range c.wrote {
		t.sent++
		if !c.witness.Saw(w.event) {
			t.forgotten++
		}
		letter, dead := c.letters[string(w.event)]
		n := count[w.marker]
		for i := 2; i <= w.lines; i++ {
			n = min(n, count[fmt.Sprintf("%s/%d", w.marker, i)])
		}
		switch {
		case dead && (letter.Doubt || n > 0):
			t.doubt++
		case dead:
			t.dead++
		case n > 0:
			t.delivered++
		case w.redacted != "":
			t.redacted++
		default:
			t.lost = append(t.lost, w.marker)
		}
		if dead && told[w.event] == 0 && !untouchable(letter.Cause) {
			c.complain("%s is a dead letter (%s), and nobody was told", w.marker, letter.Cause)
		} else if !dead && told[w.event] > 0 {
			c.complain("alice was told that %s is in trouble, and it is not", w.marker)
		}
	}
	return t
}

// inOrder compares the lines that came to a channel with the order in which the bridge was given their messages.
func (c *checker) inOrder(t *tally, lines []line) {
	events := map[string]id.EventID{}
	for _, w := range c.wrote {
		events[w.marker] = w.event
	}
	of := func(l line) id.EventID {
		marker, _, _ := strings.Cut(l.marker, "/")
		return events[marker]
	}
	for i, later := range lines {
		x := of(later)
		for _, earlier := range lines[:i] {
			y := of(earlier)
			early := number(later.marker) < number(earlier.marker)
			switch {
			case x == y && early, x != y && c.witness.Before(x, y),
				early && !c.witness.Saw(y): // it was read from the room, and with it what was there before
				t.reordered = append(t.reordered, later.marker+" after "+earlier.marker)
			case early:
				t.late++
			}
		}
	}
}

// untouchable says whether a process ended even over telling of it, after it had ended over the event alone three times: then it
// is not looked at any more.
func untouchable(cause string) bool {
	var inARow, alone int
	_, _ = fmt.Sscanf(cause, "the process ended while this was under way, %d times in a row, %d times while nothing else was", &inARow, &alone)
	return alone > 3
}

// members: on both sides the same people are there, and each has one device at most.
func (c *checker) members() {
	for i, room := range c.rooms {
		var want []string
		there, err := c.irc.Members(c.ctx, c.channels[i])
		c.ok(err)
		for _, nick := range there {
			if nick != botNick {
				want = append(want, nick)
			}
		}
		members, err := c.alice.Members(c.ctx, room)
		c.ok(err)
		if got := members[c.bot]; got != "join" {
			c.complain("the bot is not in the room of %s any more: %q", c.channels[i], got)
		}
		var got []string
		for user, membership := range members {
			nick, ghost := strings.CutPrefix(user.Localpart(), "irc_")
			if ghost && membership == "join" {
				got = append(got, nick)
			}
			if !ghost && user != c.bot {
				continue
			}
			if devices, err := c.hs.Devices(c.ctx, user); err != nil || devices > 1 {
				c.complain("%s has %d devices (%v)", user, devices, err)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			c.complain("in %s are %v, and in its room their ghosts %v", c.channels[i], want, got)
		}
	}
}

// links: the link to a photo works until the photo is redacted, whatever was killed in between.
func (c *checker) links() {
	redacted := map[string]bool{}
	for _, w := range c.wrote {
		redacted[w.marker] = w.redacted != ""
	}
	c.wire.mu.Lock()
	arrived := slices.Clone(c.wire.arrived)
	c.wire.mu.Unlock()
	good, dead := 0, 0
	for _, l := range arrived {
		if !strings.HasPrefix(l.marker, "p") {
			continue
		}
		resp, err := c.http.Get(l.url)
		if err != nil {
			c.complain("the link of %s: %v", l.marker, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch {
		case err != nil:
			c.complain("the link of %s: %v", l.marker, err)
		case redacted[l.marker] && resp.StatusCode != http.StatusGone:
			c.complain("the link of %s, which was redacted, answers %s", l.marker, resp.Status)
		case redacted[l.marker]:
			dead++
		case resp.StatusCode != http.StatusOK || string(body) != string(photo):
			c.complain("the link of %s answers %s and %d bytes", l.marker, resp.Status, len(body))
		default:
			good++
		}
	}
	c.Logf("photos: %d links work, %d died with their message", good, dead)
}
