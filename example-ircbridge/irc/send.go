package irc

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/trestle-bridge/trestle/bridge"
)

// delivery is a message on its way: its lines, and how many of them the network has. It outlives a link, and a failed
// attempt, so that what the network has confirmed is not sent again.
type delivery struct {
	parts []part
	done  int
	ids   []string
}

// maxProgress bounds the messages whose progress is remembered.
const maxProgress = 1000

// Send implements [bridge.Session]. The IDs are the network's message IDs, if it has them.
func (s *session) Send(ctx context.Context, msg *bridge.Message) (bridge.Sent, error) {
	s.mu.Lock()
	d := s.progress[msg.ID]
	if d == nil {
		d = &delivery{}
	}
	s.mu.Unlock()
	hidden := 0
	err := s.say(ctx, msg.Channel, d, func(l *link, target string) (parts []part, err error) {
		parts, hidden, err = l.compose(target, msg)
		return parts, err
	})
	if err == nil && hidden > 0 {
		s.out.sink.Warn(msg.Channel, fmt.Sprintf("A message of %s was too long for IRC: %d of its lines %s not shown there.",
			msg.Sender.ID, hidden, plural(hidden, "was", "were")))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.done == 0 || err == nil || bridge.IsPermanent(err) {
		delete(s.progress, msg.ID)
	} else {
		if len(s.progress) >= maxProgress {
			clear(s.progress)
		}
		s.progress[msg.ID] = d
	}
	if err != nil {
		return bridge.Sent{}, fmt.Errorf("sending %s to %s: %w", msg.ID, msg.Channel, err)
	}
	return bridge.Sent{IDs: d.ids}, nil
}

// say brings lines into a channel, over as many links as it takes, and returns when the network has them all.
func (s *session) say(ctx context.Context, channel string, d *delivery, compose func(l *link, target string) ([]part, error)) error {
	for {
		err := s.attempt(ctx, channel, d, compose)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errUnsent) && ctx.Err() == nil && s.ctx.Err() == nil:
			continue // nothing of what is left has left: the next link gets it
		case d.done > 0 && !bridge.IsPermanent(err) && !bridge.IsInDoubt(err):
			return bridge.InDoubt(fmt.Errorf("the network has %d of %d lines: %w", d.done, len(d.parts), err))
		}
		return err
	}
}

// attempt does it over one link. errUnsent means that the link went before its turn.
func (s *session) attempt(ctx context.Context, channel string, d *delivery, compose func(*link, string) ([]part, error)) error {
	l, err := s.linked(ctx)
	if err != nil {
		return err
	}
	if err := s.enter(ctx, channel); err != nil {
		return err
	}
	waits, err := s.queueParts(l, channel, d, compose)
	if err != nil {
		l.outlive(ctx, err)
		return err
	}
	for i, p := range waits {
		select {
		case <-p.done:
		case <-ctx.Done():
			return l.takeBack(waits[i:], ctx.Err())
		}
		if p.err != nil {
			_ = l.takeBack(waits[i+1:], p.err)
			l.outlive(ctx, p.err)
			return p.err
		}
		d.done++
		if p.msgid != "" {
			d.ids = append(d.ids, p.msgid)
		}
	}
	if len(d.ids) != len(d.parts) {
		d.ids = nil // some without would make the others' places wrong
	}
	return nil
}

// outlive waits, after a line that was not sent, until the link is out of the way.
func (l *link) outlive(ctx context.Context, err error) {
	if !errors.Is(err, errUnsent) {
		return
	}
	select {
	case <-l.ended:
	case <-ctx.Done():
	}
}

// enter makes sure that we are in the channel. One that we were kicked from is not entered again.
func (s *session) enter(ctx context.Context, name string) error {
	s.mu.Lock()
	ch := s.channels[s.mapping.Fold(name)]
	joined, kicked := ch != nil && ch.joined, ""
	if ch != nil {
		kicked = ch.kicked
	}
	s.mu.Unlock()
	switch {
	case joined:
		return nil
	case kicked != "":
		return bridge.Permanent(fmt.Errorf("the bridge is not in %s any more (%s): plumb the channel again", name, kicked))
	}
	return s.JoinChannel(ctx, name)
}

// queueParts queues what the network does not have yet, as lines that stay together.
func (s *session) queueParts(l *link, channel string, d *delivery, compose func(*link, string) ([]part, error)) ([]*pending, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.done == 0 {
		// Another link may have other limits.
		parts, err := compose(l, channel)
		if err != nil {
			return nil, err
		}
		d.parts = parts
	}
	labels := l.caps["labeled-response"] && l.caps["batch"] && l.caps["echo-message"]
	var waits []*pending
	var lines []line
	for _, p := range d.parts[d.done:] {
		wait := newPending(l.fold(channel))
		tags := map[string]string{}
		for name, value := range p.tags {
			tags[name] = value
		}
		if labels {
			s.labelNo++
			wait.label = strconv.FormatUint(s.labelNo, 36)
			tags["label"] = wait.label
		}
		data, err := encode(tags, l.support.lineLen, p.command, channel, p.text)
		if err != nil {
			return nil, bridge.Permanent(err)
		}
		waits = append(waits, wait)
		lines = append(lines, line{data: data, wait: wait})
	}
	return waits, l.queue.push(lines...)
}

// takeBack gives up lines. The error says whether any of them may have arrived.
func (l *link) takeBack(waits []*pending, cause error) error {
	doubt := false
	for _, p := range waits {
		if !l.queue.cancel(p) {
			doubt = true
		}
	}
	if doubt {
		return bridge.InDoubt(fmt.Errorf("given up while the network had not confirmed the line: %w", cause))
	}
	return fmt.Errorf("given up before the line was sent: %w", cause)
}
