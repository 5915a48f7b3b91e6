package irc

import (
	"context"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// typingEvery is how often a client may say that it is typing (https://ircv3.net/specs/client-tags/typing).
const typingEvery = 3 * time.Second

// SendTyping implements [bridge.TypingSender]: the bot types while anybody does. It needs message-tags. It never waits, and
// does not begin while there are few tokens to send with: messages go first.
func (s *session) SendTyping(_ context.Context, channel string, users []bridge.Sender) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.link
	if l == nil || !l.caps["message-tags"] || !l.support.allows("typing") || l.in(channel) == nil {
		return nil
	}
	folded, now := l.fold(channel), time.Now()
	last, active := s.typing[folded]
	state := "active"
	switch {
	case len(users) == 0 && !active, len(users) > 0 && now.Sub(last) < typingEvery:
		return nil
	case len(users) == 0:
		state = "done"
		delete(s.typing, folded)
	default:
		s.typing[folded] = now
	}
	data, err := encode(map[string]string{"+typing": state}, l.support.lineLen, "TAGMSG", channel)
	switch {
	case err != nil:
		return bridge.Permanent(err)
	case state == "done":
		_ = l.queue.push(line{data: data}) // whoever was shown must not be shown for ever
	default:
		l.queue.idle(data)
	}
	return nil
}
