package irc

import (
	"fmt"
	"strings"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/bridge"
)

// handleNumeric is a 4xx, 5xx or 9xx without a handler of its own: the refusal of a line that somebody waits for.
func (l *link) handleNumeric(m *ircmsg.Message) {
	if label := l.label(m); label != "" {
		l.queue.byLabel(label, "", sendRefusal(m))
		return
	}
	if len(m.Params) < 2 {
		return
	}
	target := m.Params[1]
	if ch := l.session.channels[l.fold(target)]; ch != nil && ch.joining {
		l.joinRefused(ch, m)
		return
	}
	l.queue.byTarget(l.fold(target), sendRefusal(m))
}

// handleFail is a FAIL of the standard replies (https://ircv3.net/specs/extensions/standard-replies).
func (l *link) handleFail(m *ircmsg.Message) {
	err := bridge.Permanent(fmt.Errorf("the network refused it: %s", oneLine(strings.Join(m.Params, " "))))
	if label := l.label(m); label != "" {
		l.queue.byLabel(label, "", err)
		return
	}
	if m.Params[0] == "CHATHISTORY" {
		l.historyRefused(m)
		return
	}
	for _, context := range m.Params[2:] {
		if l.queue.byTarget(l.fold(context), err) {
			return
		}
	}
}

// sendRefusal says in words why a line was refused. The network's own text is kept: it often knows better.
func sendRefusal(m *ircmsg.Message) error {
	said := oneLine(m.Params[len(m.Params)-1])
	target := ""
	if len(m.Params) > 1 {
		target = m.Params[1]
	}
	text := ""
	switch m.Command {
	case "404":
		text = "the network does not let the bridge speak in " + target +
			" (moderated, banned, or not in the channel: a channel operator can give it voice with /mode " + target + " +v)"
	case "403", "401":
		text = "there is no " + target + " on the network"
	case "442":
		text = "the bridge is not in " + target
	case "477", "486":
		text = target + " is for registered users: give the bridge an account (network.sasl)"
	case "482":
		text = "the bridge needs channel operator status in " + target + " for that (/mode " + target + " +o), or the channel must let everybody do it (/mode " + target + " -t)"
	case "412", "411":
		text = "there was nothing to send"
	case "417", "414", "413":
		text = "the line was too long for the network"
	case "439":
		return fmt.Errorf("the network asks to wait: %s", said)
	default:
		text = "the network refused it (" + m.Command + ")"
	}
	return bridge.Permanent(fmt.Errorf("%s: %s", text, said))
}

// joinRefused ends a JOIN, and says in words why.
func (l *link) joinRefused(ch *channel, m *ircmsg.Message) {
	said := oneLine(m.Params[len(m.Params)-1])
	text := ""
	switch m.Command {
	case "471":
		text = "the channel is full (+l): ask a channel operator to raise the limit"
	case "473":
		text = "one must be invited (+i): ask a channel operator to invite the bridge with /invite " + l.nick + " " + ch.name
	case "474":
		text = "the bridge is banned from it (+b): ask a channel operator to lift the ban"
	case "475":
		text = "it needs a key (+k), which is missing or wrong in the configuration (network.keys)"
	case "477":
		text = "it is for registered users: give the bridge an account (network.sasl)"
	case "405":
		text = "the bridge is in as many channels as the network allows"
	case "403", "476", "479":
		text = "the network does not take the name"
	case "470":
		text = "the network sends the bridge to another channel instead"
	case "489":
		text = "it is for encrypted links: switch on network.tls"
	case "437":
		text = "it is not available at the moment"
	case "439", "480":
		text = "the network asks to wait"
	default:
		text = "the network refuses it (" + m.Command + ")"
	}
	text = "cannot join " + ch.name + " on IRC: " + text
	err := fmt.Errorf("%s (%s)", text, said)
	switch m.Command {
	case "437", "439", "471", "480":
	default:
		err = bridge.Permanent(err)
	}
	l.session.log().Warn().Str("numeric", m.Command).Err(err).Msg("Not joined " + ch.name)
	l.joinFailed(ch, err, text)
}
