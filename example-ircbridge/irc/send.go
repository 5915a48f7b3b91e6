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
	stays bool // it is worth no joining
}

// maxProgress bounds the messages whose progress is remembered.
const maxProgress = 1000

// marker is told that a message is about to leave; its error keeps it from leaving.
type marker func(ctx context.Context) error

func unmarked(context.Context) error { return nil }

// Send implements [bridge.Session]. The IDs are the network's message IDs, if it has them.
func (s *session) Send(ctx context.Context, msg *bridge.Message) (bridge.Sent, error) {
	return s.SendMarked(ctx, msg, unmarked)
}

// SendMarked implements [bridge.DoubtMarker]. It is Send that calls leaving when the message has its place in the bucket.
func (s *session) SendMarked(ctx context.Context, msg *bridge.Message, leaving func(context.Context) error) (bridge.Sent, error) {
	s.mu.Lock()
	d := s.progress[msg.ID]
	if d == nil {
		d = &delivery{}
	}
	s.mu.Unlock()
	hidden, page := 0, ""
	send := func() error {
		return s.say(ctx, msg.Channel, d, leaving, func(l *link, target string) (parts []part, err error) {
			parts, hidden, err = l.compose(target, msg, page)
			return parts, err
		})
	}
	err := send()
	if errors.Is(err, errPageWanted) {
		// Only a link knows how much fits, and a page is not made while it is held.
		if page, err = msg.TextLink(ctx); err == nil {
			err = send()
		}
	}
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

// say brings lines into a channel, and returns when the network has them all. Nothing of a message leaves unless the session is
// in the channel; once some of it has left, the rest follows over as many links as it takes.
func (s *session) say(ctx context.Context, channel string, d *delivery, leaving marker, compose func(l *link, target string) ([]part, error)) error {
	for {
		err := s.attempt(ctx, channel, d, &leaving, compose)
		unsent := errors.Is(err, errUnsent)
		switch {
		case err == nil || bridge.IsPermanent(err) || bridge.IsInDoubt(err):
			return err
		case d.done == 0 && unsent:
			return s.offline("the link was lost before anything was sent")
		case d.done == 0:
			return err
		case unsent && ctx.Err() == nil && s.ctx.Err() == nil:
			continue // nothing of what is left has left: the next link gets it
		}
		// Not wrapped: of a message that has left in part, nobody may think that it has not left.
		return bridge.InDoubt(fmt.Errorf("%d of %d lines reached IRC: %v", d.done, len(d.parts), err))
	}
}

func (s *session) offline(why string) error {
	return fmt.Errorf("%w: %s (%s)", bridge.ErrOffline, why, s.config.host())
}

// attempt does it over one link. errUnsent means that the link went before its turn.
func (s *session) attempt(ctx context.Context, channel string, d *delivery, leaving *marker, compose func(*link, string) ([]part, error)) error {
	l, err := s.inside(ctx, channel, d.done > 0, d.stays)
	if err != nil {
		return err
	}
	waits, err := s.queueParts(l, channel, d, *leaving != nil, compose)
	if err != nil {
		l.outlive(ctx, err)
		return err
	}
	if *leaving != nil {
		if err := l.mark(ctx, waits, *leaving); err != nil {
			return err
		}
		*leaving = nil
	}
	for i, p := range waits {
		select {
		case <-p.done:
		case <-ctx.Done():
			return l.takeBack(waits[i:], ctx.Err())
		}
		switch {
		case bridge.IsPermanent(p.err):
			if reached := d.done + l.reached(ctx, waits[i+1:]); reached > 0 {
				return fmt.Errorf("%d of %d lines reached IRC: %w", reached, len(d.parts), p.err)
			}
			return p.err
		case p.err != nil:
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

// mark waits for the turn of the first line, and has it marked. The writer does not wait for that: what is urgent overtakes.
func (l *link) mark(ctx context.Context, waits []*pending, leaving marker) error {
	select {
	case <-waits[0].turn:
	case <-waits[0].done:
		return nil // the link is gone: the line has its fate
	case <-ctx.Done():
		return l.takeBack(waits, ctx.Err())
	}
	if err := leaving(ctx); err != nil {
		_ = l.takeBack(waits, err)
		return err
	}
	l.queue.pass(waits[0])
	return nil
}

// reached takes back what has not left of a message that was refused in part, and counts what arrived of the rest.
func (l *link) reached(ctx context.Context, waits []*pending) (n int) {
	for _, p := range l.queue.cancel(waits) {
		select {
		case <-p.done:
			if p.err == nil {
				n++
			}
		case <-ctx.Done():
			return n
		}
	}
	return n
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

// inside returns the link, when the session is in the channel. It waits for nothing that is under way already, unless the
// message has left in part. It joins, and waits for that, when nobody else has tried, or the network has refused it before:
// whoever writes then learns why.
func (s *session) inside(ctx context.Context, name string, wait, stays bool) (*link, error) {
	for {
		s.mu.Lock()
		l, stopped, ch := s.link, s.stopped, s.channels[s.mapping.Fold(name)]
		var joined, joining bool
		kicked := ""
		if ch != nil {
			joined, joining, kicked = ch.joined && ch.wanted, ch.joining, ch.kicked
		}
		s.mu.Unlock()
		switch {
		case stopped != nil:
			return nil, stopped
		case s.ctx.Err() != nil:
			return nil, errClosed
		case kicked != "" && !s.relays():
			return nil, bridge.Permanent(fmt.Errorf("you are not in %s any more (%s): end your login and make it again", name, kicked))
		case kicked != "":
			return nil, bridge.Permanent(fmt.Errorf("the bridge is not in %s any more (%s): plumb the channel again", name, kicked))
		case l != nil && joined:
			return l, nil
		case l == nil && !wait:
			return nil, s.offline("no connection")
		case joining && !wait:
			return nil, s.offline("still joining " + name)
		case stays:
			return nil, bridge.Permanent(errors.New("who speaks there is not in " + name))
		}
		if err := s.enter(ctx, name, wait); err != nil {
			return nil, err
		}
	}
}

// enter joins a channel that somebody has written to.
func (s *session) enter(ctx context.Context, name string, wait bool) error {
	name, err := (*Network)(nil).Channel(name)
	if err != nil {
		return bridge.Permanent(err)
	}
	limited := ctx
	if !wait {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, s.patience())
		defer cancel()
	}
	err = s.join(limited, name, true)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return s.offline("no answer to the JOIN of " + name)
	}
	return err
}

// queueParts queues what the network does not have yet, as lines that stay together.
func (s *session) queueParts(l *link, channel string, d *delivery, marked bool, compose func(*link, string) ([]part, error)) ([]*pending, error) {
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
		if marked && len(waits) == 0 {
			wait.turn = make(chan struct{})
		}
		tags := map[string]string{}
		for name, value := range p.tags {
			tags[name] = value
		}
		if labels {
			s.labelNo++
			wait.label = strconv.FormatUint(s.labelNo, 36)
			tags["label"] = wait.label
		}
		params := []string{channel, p.text}
		if p.text == "" { // tags alone
			params = params[:1]
		} else if p.reason != "" {
			params = append(params, p.reason)
		}
		data, err := encode(tags, l.support.lineLen, p.command, params...)
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
	if left := l.queue.cancel(waits); len(left) > 0 {
		return bridge.InDoubt(fmt.Errorf("given up while the network had not confirmed the line: %w", cause))
	}
	return fmt.Errorf("given up before the line was sent: %w", cause)
}
