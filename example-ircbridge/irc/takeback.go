package irc

import (
	"context"
	"errors"
	"strings"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

// This file is https://ircv3.net/specs/extensions/message-redaction and https://ircv3.net/specs/client-tags/react, drafts both, and so under their draft names.
// On a network without them nothing of this crosses, and nobody is told: a reaction is not worth a line.

const (
	redactionCap = "draft/message-redaction"
	reactTag     = "draft/react"
	unreactTag   = "draft/unreact"
	maxReaction  = 64 // bytes
)

// handleRedact is REDACT: somebody took a message back. Whether they may is for the server.
func (l *link) handleRedact(m *ircmsg.Message) {
	nick := m.Nick()
	if l.isMe(nick) {
		l.learn(m)
		l.queue.byLabel(l.label(m), "", nil)
		return
	}
	ch := l.in(m.Params[0])
	if ch == nil {
		return
	}
	reason := ""
	if len(m.Params) > 2 {
		reason = readable(m.Params[2])
	}
	l.deliver(m, bridge.Incoming{Channel: ch.name, Sender: l.remote(nick), Redact: &bridge.Redact{ID: m.Params[1], Reason: reason}})
}

// reaction delivers the reaction in a TAGMSG, if there is one.
func (l *link) reaction(ch *channel, m *ircmsg.Message) bool {
	to := replyTag(m)
	for name, removed := range map[string]bool{"+" + reactTag: false, "+" + unreactTag: true} {
		present, key := m.GetTag(name)
		if key = strings.TrimSpace(format.Clean(key)); !present || key == "" || to == "" || len(key) > maxReaction {
			continue
		}
		_, msgid := m.GetTag("msgid")
		l.deliver(m, bridge.Incoming{
			Channel: ch.name, ID: msgid, Sender: l.remote(m.Nick()), React: &bridge.React{To: to, Key: key, Removed: removed},
		})
		return true
	}
	return false
}

func (l *link) redacts() bool { return l.caps[redactionCap] }

func (l *link) reacts() bool {
	return l.caps["message-tags"] && l.support.allows(reactTag) && l.support.allows(unreactTag) && l.support.allows("draft/reply")
}

// Redacts implements [bridge.Redacter].
func (s *session) Redacts() bool { return s.offers((*link).redacts, &s.redacts) }

// Reacts implements [bridge.Reacter].
func (s *session) Reacts() bool { return s.offers((*link).reacts, &s.reacts) }

// offers says what the network has, or had when the last link ended; before the first nobody knows.
func (s *session) offers(now func(*link) bool, before *bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil {
		return now(s.link)
	}
	return *before || !s.wasLinked
}

// SendRedaction implements [bridge.Redacter].
func (s *session) SendRedaction(ctx context.Context, channel string, parts []string, reason string, _ bridge.Sender) error {
	return s.tellOf(ctx, channel, func(l *link) (lines []part) {
		if !l.redacts() {
			return nil
		}
		reason = strings.Join(strings.Fields(format.CleanPlain(reason)), " ")
		for _, id := range parts {
			room := l.support.lineLen - len("REDACT  \r\n") - len(channel) - len(id) - 2
			lines = append(lines, part{command: "REDACT", text: id, reason: format.Truncate(reason, max(room, 0))})
		}
		return lines
	})
}

// SendReaction implements [bridge.Reacter].
func (s *session) SendReaction(ctx context.Context, channel string, r *bridge.React, _ bridge.Sender) error {
	name := reactTag
	if r.Removed {
		name = unreactTag
	}
	if len(r.Key) > maxReaction || format.CleanPlain(r.Key) != r.Key {
		return bridge.Permanent(errors.New("IRC has no such reaction"))
	}
	return s.tellOf(ctx, channel, func(l *link) []part {
		if !l.reacts() {
			return nil
		}
		return []part{{command: "TAGMSG", tags: map[string]string{"+" + name: r.Key, "+draft/reply": r.To}}}
	})
}

// tellOf sends what has to do with a message that is there; that the network has nothing for it is no error. Sent twice it does no harm, and so an error in
// doubt is one to try again.
func (s *session) tellOf(ctx context.Context, channel string, compose func(l *link) []part) error {
	err := s.say(ctx, channel, &delivery{stays: !s.relays()}, nil, func(l *link, _ string) ([]part, error) { return compose(l), nil })
	if bridge.IsInDoubt(err) {
		return s.offline("the network did not say whether it has it")
	}
	return err
}
