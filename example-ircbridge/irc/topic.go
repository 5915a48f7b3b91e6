package irc

import (
	"context"
	"fmt"
	"strings"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

// SendTopic implements [bridge.TopicSender]. Line breaks become spaces; what is longer than the network takes is cut off.
func (s *session) SendTopic(ctx context.Context, channel, topic string, by bridge.Sender) (set string, err error) {
	err = s.say(ctx, channel, &delivery{}, unmarked, func(l *link, target string) ([]part, error) {
		limit := l.room("TOPIC", target)
		if l.support.topicLen > 0 {
			limit = min(limit, l.support.topicLen)
		}
		set = format.Truncate(strings.Join(strings.Fields(format.CleanPlain(topic)), " "), max(limit, 0))
		return []part{{command: "TOPIC", text: set}}, nil
	})
	if err != nil {
		return "", fmt.Errorf("setting the topic of %s for %s: %w", channel, by.ID, err)
	}
	return set, nil
}
