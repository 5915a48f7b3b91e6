package irc

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

const (
	tellEvery  = 500 * time.Millisecond // how long who comes and goes is collected
	tellWithin = 30 * time.Second       // after that it is no news
	maxTidings = 200                    // users of one channel
	maxNames   = 10                     // names in one line, of those who came and of those who went
)

// tidings are the Matrix users of whose coming and going one channel has not been told.
type tidings struct {
	since time.Time // the oldest
	users []tiding
	more  int // left out
}

type tiding struct {
	id     id.UserID
	name   string
	joined bool
	reason string
}

// SendMembership implements [bridge.MembershipSender], with a NOTICE if the configuration wants it. It never waits: who comes
// and goes is collected, told of in one line when no message needs the bucket, and not at all when that takes too long.
func (s *session) SendMembership(_ context.Context, m *bridge.Membership) error {
	if s.config.Membership == MembershipOff {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped != nil || s.ctx.Err() != nil {
		return nil
	}
	t := s.tidings[m.Channel]
	if t == nil {
		t = &tidings{since: time.Now()}
		s.tidings[m.Channel] = t
	}
	t.add(tiding{
		id: m.User.ID, name: senderName(m.User, s.config.NoPing), joined: m.Joined,
		reason: strings.Join(strings.Fields(format.CleanPlain(m.Reason)), " "),
	})
	if !s.telling {
		s.telling = true
		s.later(tellEvery, s.tell)
	}
	return nil
}

// add takes a change in. Who came and went again meanwhile is nobody to tell of.
func (t *tidings) add(news tiding) {
	i := slices.IndexFunc(t.users, func(old tiding) bool { return old.id == news.id })
	switch {
	case i >= 0 && t.users[i].joined != news.joined:
		t.users = slices.Delete(t.users, i, i+1)
	case i >= 0:
	case len(t.users) >= maxTidings:
		t.more++
	default:
		t.users = append(t.users, news)
	}
}

// tell tells each channel, or lets it wait for the next time.
func (s *session) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for channel, t := range s.tidings {
		switch {
		case time.Since(t.since) > tellWithin:
			s.log().Info().Str("channel", channel).Int("users", len(t.users)+t.more).
				Msg("Not told on IRC who came and went on Matrix: there was no room for it in time")
			delete(s.tidings, channel)
		case len(t.users) == 0, s.link != nil && s.link.in(channel) != nil && s.link.tell(channel, t.text()):
			delete(s.tidings, channel)
		}
	}
	s.telling = len(s.tidings) > 0
	if s.telling {
		s.later(tellEvery, s.tell)
	}
}

// tell queues a line that gives way to every message. It reports whether it did.
func (l *link) tell(channel, text string) bool {
	data, err := encode(nil, l.support.lineLen, "NOTICE", channel, format.Truncate(text, max(l.room("NOTICE", channel), 0)))
	return err != nil || l.queue.idle(data)
}

// text is "Alice (@alice:example.org) joined" for one, and "Alice, Bob joined; Carol left (Matrix)" for several.
func (t *tidings) text() string {
	if len(t.users) == 1 && t.more == 0 {
		one := t.users[0]
		who := one.name + " (" + format.Name(string(one.id), 255) + ") "
		switch {
		case one.joined:
			return who + "joined"
		case one.reason != "":
			return who + "left: " + one.reason
		}
		return who + "left"
	}
	var came, went []string
	for _, u := range t.users {
		if u.joined {
			came = append(came, u.name)
		} else {
			went = append(went, u.name)
		}
	}
	var said []string
	for _, group := range []struct {
		names []string
		verb  string
	}{{came, " joined"}, {went, " left"}} {
		if names := group.names; len(names) > maxNames {
			said = append(said, strings.Join(names[:maxNames], ", ")+" and "+strconv.Itoa(len(names)-maxNames)+" more"+group.verb)
		} else if len(names) > 0 {
			said = append(said, strings.Join(names, ", ")+group.verb)
		}
	}
	return strings.Join(said, "; ") + " (Matrix)"
}
