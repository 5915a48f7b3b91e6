package ircd

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// event is a message that comes from a client, with the tags that every recipient may get.
func (c *client) event(command string, params ...string) ircmsg.Message {
	tags := map[string]string{"time": time.Now().UTC().Format("2006-01-02T15:04:05.000Z")}
	if c.account != "" {
		tags["account"] = c.account
	}
	return ircmsg.MakeMessage(tags, c.prefix(), command, params...)
}

// deliver sends an event with those of its tags that the client has asked for. During a labelled command it is one of the
// responses.
func (c *client) deliver(message ircmsg.Message) {
	out := ircmsg.MakeMessage(nil, message.Source, message.Command, message.Params...)
	for name, value := range message.AllTags() {
		switch {
		case name == "time" && !c.caps["server-time"],
			name == "account" && !c.caps["account-tag"],
			name == "msgid" && !c.caps["message-tags"],
			strings.HasPrefix(name, "+") && !c.caps["message-tags"]:
			continue
		}
		out.SetTag(name, value)
	}
	c.respond(out)
}

// reply sends a numeric.
func (c *client) reply(numeric string, params ...string) {
	c.respond(ircmsg.MakeMessage(c.timeTag(), c.server.opts.Name, numeric, append([]string{c.name()}, params...)...))
}

// fromServer sends a command of the server's own.
func (c *client) fromServer(command string, params ...string) {
	c.respond(ircmsg.MakeMessage(c.timeTag(), c.server.opts.Name, command, params...))
}

func (c *client) timeTag() map[string]string {
	if !c.caps["server-time"] {
		return nil
	}
	return map[string]string{"time": time.Now().UTC().Format("2006-01-02T15:04:05.000Z")}
}

func (c *client) respond(message ircmsg.Message) {
	if c.labeling {
		c.responses = append(c.responses, message)
		return
	}
	c.write(message)
}

// flushLabel sends what a labelled command led to: with the label on a single response, in a batch when there are several,
// or as an ACK when there is none (https://ircv3.net/specs/extensions/labeled-response).
func (c *client) flushLabel() {
	if !c.labeling {
		return
	}
	responses := c.responses
	c.labeling, c.responses = false, nil
	label := map[string]string{"label": c.label}
	switch {
	case len(responses) == 0:
		c.write(ircmsg.MakeMessage(label, c.server.opts.Name, "ACK"))
	case len(responses) == 1:
		responses[0].UpdateTags(label)
		c.write(responses[0])
	default:
		batch := c.server.nextID()
		c.write(ircmsg.MakeMessage(label, c.server.opts.Name, "BATCH", "+"+batch, "labeled-response"))
		for _, r := range responses {
			if r.Command != "BATCH" && !r.HasTag("batch") {
				r.SetTag("batch", batch)
			}
			c.write(r)
		}
		c.write(ircmsg.MakeMessage(nil, c.server.opts.Name, "BATCH", "-"+batch))
	}
}

// write puts a message on the wire, cut to the length of a line as servers do.
func (c *client) write(message ircmsg.Message) {
	line, err := message.LineBytesStrict(false, c.server.opts.LineLen)
	if err != nil && len(line) == 0 {
		// A parameter that cannot be written, such as an empty one in the middle.
		return
	}
	c.enqueue(line)
}

// everyone sends an event to all members of a channel, but for one client if it is not nil.
func (ch *channel) everyone(message ircmsg.Message, but *client) {
	for member := range maps.Keys(ch.members) {
		if member != but {
			member.deliver(message)
		}
	}
}

// neighbours are the clients that share a channel with c, without c.
func (s *Server) neighbours(c *client) map[*client]bool {
	found := map[*client]bool{}
	for _, ch := range s.channels {
		if ch.members[c] == nil {
			continue
		}
		for member := range ch.members {
			found[member] = true
		}
	}
	delete(found, c)
	return found
}

func plural(n int, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %s", n, many)
}
