package irc

import (
	"context"
	"fmt"
	"strings"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

// SendMembership implements [bridge.MembershipSender], with a NOTICE if the configuration wants it.
func (s *session) SendMembership(ctx context.Context, m *bridge.Membership) error {
	if s.config.Membership == MembershipOff {
		return nil
	}
	text := senderName(m.User, s.config.NoPing) + " (" + format.Name(string(m.User.ID), 255) + ") "
	if m.Joined {
		text += "joined"
	} else {
		text += "left"
		if reason := strings.Join(strings.Fields(format.CleanPlain(m.Reason)), " "); reason != "" {
			text += ": " + reason
		}
	}
	err := s.say(ctx, m.Channel, &delivery{}, unmarked, func(l *link, target string) ([]part, error) {
		return []part{{command: "NOTICE", text: format.Truncate(text, max(l.room("NOTICE", target), 0))}}, nil
	})
	if err != nil {
		return fmt.Errorf("telling %s of %s: %w", m.Channel, m.User.ID, err)
	}
	return nil
}
