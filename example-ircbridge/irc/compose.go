package irc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

// part is one line that a message became.
type part struct {
	command string
	text    string
	tags    map[string]string
}

const (
	maxName     = 40  // bytes of a display name
	maxFileName = 120 // bytes of a file's name
	leastRoom   = 60  // bytes of text that a line must have room for
)

// errNothing is a message that shows nothing on IRC.
var errNothing = errors.New("the message has nothing in it that IRC can show")

// compose makes the lines of a message, and says how many are left out.
func (l *link) compose(target string, msg *bridge.Message) (parts []part, hidden int, err error) {
	c := &l.session.config
	command := "PRIVMSG"
	if msg.Kind == bridge.KindNotice {
		command = "NOTICE"
	}
	name := senderName(msg.Sender, c.NoPing)
	before := "<" + name + "> "
	if msg.Kind == bridge.KindEmote {
		before = "* " + name + " "
	}
	text := messageText(msg)
	if strings.TrimSpace(format.Strip(text)) == "" {
		return nil, 0, bridge.Permanent(errNothing)
	}
	if msg.ReplyTo != nil && msg.Kind != bridge.KindEmote {
		text = addressed(msg.ReplyTo, text, c.NoPing)
	}
	lines, hidden, err := l.cut(command, target, before, text)
	if err != nil {
		return nil, 0, err
	}
	for _, text := range lines {
		parts = append(parts, part{command: command, text: text})
	}
	if msg.ReplyTo != nil && msg.ReplyTo.RemoteID != "" && l.caps["message-tags"] {
		parts[0].tags = map[string]string{}
		for _, tag := range [...]string{"reply", "draft/reply"} {
			if l.support.allows(tag) {
				parts[0].tags["+"+tag] = msg.ReplyTo.RemoteID
			}
		}
	}
	return parts, hidden, nil
}

// cut makes the lines of a text, each with the same beginning.
func (l *link) cut(command, target, before, text string) (lines []string, hidden int, err error) {
	room := l.room(command, target) - len(before)
	if room < leastRoom {
		return nil, 0, bridge.Permanent(fmt.Errorf("a line to %s has room for %d bytes of text only", target, max(room, 0)))
	}
	lines = format.Split(text, room)
	if most := l.session.config.MaxLines; len(lines) > most {
		hidden = len(lines) - most
		lines = append(lines[:most:most], "… ("+strconv.Itoa(hidden)+" more "+plural(hidden, "line", "lines")+" not shown)")
	}
	for i := range lines {
		lines[i] = before + lines[i]
	}
	return lines, hidden, nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// senderName is how a Matrix user is called on IRC: the display name, or the localpart when nothing is left of it.
func senderName(sender bridge.Sender, noPing bool) string {
	name := format.Name(sender.Name, maxName)
	if name == "" {
		name = format.Name(sender.ID.Localpart(), maxName)
	}
	if name == "" {
		name = "?"
	}
	if noPing {
		name = format.NoPing(name)
	}
	return name
}

// addressed puts the name of whoever is answered before the text, unless it is there already.
func addressed(reply *bridge.Reply, text string, noPing bool) string {
	name := format.Name(reply.Name, maxName)
	if name == "" {
		return text
	}
	if rest, ok := cutPrefixFold(strings.TrimPrefix(format.Strip(text), "@"), name); ok && (rest == "" || strings.ContainsAny(rest[:1], ":, ")) {
		return text
	}
	if noPing && !reply.Remote {
		name = format.NoPing(name)
	}
	return name + ": " + text
}

func cutPrefixFold(text, prefix string) (string, bool) {
	if len(text) < len(prefix) || !strings.EqualFold(text[:len(prefix)], prefix) {
		return text, false
	}
	return text[len(prefix):], true
}

// messageText is what stands after the name.
func messageText(msg *bridge.Message) string {
	text := format.FromMatrix(msg.Text, msg.HTML, msg.ReplyTo != nil)
	if msg.Media == nil {
		return text
	}
	line := mediaText(msg)
	if caption := strings.Join(strings.Fields(text), " "); caption != "" {
		line += " — " + caption
	}
	return line
}

// mediaText is a file in words: its name, its size, and where it is.
func mediaText(msg *bridge.Message) string {
	m := msg.Media
	name := format.Label(m.Name, maxFileName)
	if name == "" {
		name = string(msg.Kind)
	}
	if msg.Kind == bridge.KindSticker {
		name = "sticker: " + name
	}
	var facts []string
	if m.Size > 0 {
		facts = append(facts, format.Size(m.Size))
	}
	if m.Width > 0 && m.Height > 0 {
		facts = append(facts, fmt.Sprintf("%d×%d", m.Width, m.Height))
	}
	if len(facts) > 0 {
		name += " (" + strings.Join(facts, ", ") + ")"
	}
	// The link was made by the bridge. Whatever it is, it is one word.
	if url := strings.Join(strings.Fields(format.CleanPlain(m.URL)), "%20"); url != "" {
		name += ": " + url
	}
	return name
}
