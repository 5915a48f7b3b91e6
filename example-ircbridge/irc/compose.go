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
	text    string // of a REDACT, the message
	reason  string // of a REDACT
	tags    map[string]string
}

const (
	maxName   = 40 // bytes of a display name
	leastRoom = 60 // bytes of text that a line must have room for
)

// errNothing is a message that shows nothing on IRC.
var errNothing = errors.New("the message has nothing in it that IRC can show")

// errPageWanted is a message that is too long, and for which there can be a page.
var errPageWanted = errors.New("the message is too long for IRC without a page")

// compose makes the lines of a message, and says how many are left out. page is the link to a page with the whole text, if there is one by now; where it is
// needed and there can be one, the error is errPageWanted.
func (l *link) compose(target string, msg *bridge.Message, page string) (parts []part, hidden int, err error) {
	c := &l.session.config
	command := "PRIVMSG"
	if msg.Kind == bridge.KindNotice {
		command = "NOTICE"
	}
	name := senderName(msg.Sender, c.NoPing)
	before, behind := "<"+name+"> ", ""
	switch {
	case !l.session.relays() && msg.Kind == bridge.KindEmote:
		before, behind = "\x01ACTION ", "\x01"
	case !l.session.relays(): // everybody sees who speaks
		before = ""
	case msg.Kind == bridge.KindEmote:
		before = "* " + name + " "
	}
	room := l.room(command, target) - len(before) - len(behind)
	if room < leastRoom {
		return nil, 0, bridge.Permanent(fmt.Errorf("a line to %s has room for %d bytes of text only", target, max(room, 0)))
	}
	text := format.FromMatrix(msg.Text, msg.HTML, msg.ReplyTo != nil)
	var lines []string
	switch {
	case msg.Media != nil:
		address := ""
		if msg.ReplyTo != nil {
			address = addressed(msg.ReplyTo, "", c.NoPing)
		}
		if room-len(address) < leastRoom+len(msg.Media.URL) { // the link comes before politeness
			address = ""
		}
		lines = fileLines(msg, text, room-len(address))
		lines[0] = address + lines[0]
	case strings.TrimSpace(format.Strip(text)) == "":
		return nil, 0, bridge.Permanent(errNothing)
	default:
		if msg.ReplyTo != nil && msg.Kind != bridge.KindEmote {
			text = addressed(msg.ReplyTo, text, c.NoPing)
		}
		lines = format.Split(text, room)
	}
	if len(lines) > c.MaxLines {
		if page == "" && c.LongText == LongTextPage && msg.TextLink != nil {
			return nil, 0, errPageWanted
		}
		lines, hidden = c.shorten(lines, page, room)
	}
	for _, text := range lines {
		parts = append(parts, part{command: command, text: before + text + behind})
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

// shorten leaves the first lines of too many, and says where the others are, or how many are hidden.
func (c *Config) shorten(lines []string, page string, room int) (short []string, hidden int) {
	if page == "" {
		hidden = len(lines) - c.MaxLines
		return append(lines[:c.MaxLines:c.MaxLines], "… ("+strconv.Itoa(hidden)+" more "+plural(hidden, "line", "lines")+" not shown)"), hidden
	}
	first := min(c.PageLines, c.MaxLines)
	rest := len(lines) - first
	last := "… (" + strconv.Itoa(rest) + " more " + plural(rest, "line", "lines") + "): " + page
	if len(last) > room {
		last = page
	}
	return append(lines[:first:first], last), 0
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
