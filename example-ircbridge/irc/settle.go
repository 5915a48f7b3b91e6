package irc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/trestle-bridge/trestle/bridge"
)

const (
	// settleSkew is by how much the clocks of the homeserver and of the network may differ.
	settleSkew = 5 * time.Minute
	// settlePages bounds how far back a message is looked for.
	settlePages = 50
)

// Settle implements [bridge.DoubtSettler]: it looks for the message's lines among our own in the network's history.
func (s *session) Settle(ctx context.Context, msg *bridge.Message, known func(string) (bool, error)) (sent bridge.Sent, there bool, err error) {
	s.mu.Lock()
	linked, had := s.link != nil, s.hadHistory
	if linked {
		had = s.link.hasHistory()
	}
	s.mu.Unlock()
	if !had && (linked || s.everLinked()) {
		return sent, false, bridge.InDoubt(errNoHistory)
	}
	l, err := s.inside(ctx, msg.Channel, false, false)
	if err != nil {
		return sent, false, err
	}
	s.mu.Lock()
	had = l.hasHistory()
	s.mu.Unlock()
	if !had {
		return sent, false, bridge.InDoubt(errNoHistory)
	}
	lines, err := s.ownLines(ctx, l, msg.Channel, msg.Time.Add(-settleSkew))
	if err != nil {
		return sent, false, err
	}
	d, err := s.expected(ctx, l, msg)
	if err != nil {
		return sent, false, err
	}
	for i := range lines {
		if d.done == len(d.parts) {
			break
		}
		_, id := lines[i].GetTag("msgid")
		if p := d.parts[d.done]; lines[i].Command != p.command || lines[i].Params[1] != p.text {
			continue
		}
		if accounted, err := known(id); err != nil {
			return sent, false, err
		} else if accounted || slices.Contains(d.ids, id) {
			continue
		}
		d.done, d.ids = d.done+1, append(d.ids, id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.progress, msg.ID)
	if d.done == len(d.parts) {
		if len(d.ids) != len(d.parts) {
			d.ids = nil
		}
		return bridge.Sent{IDs: d.ids}, true, nil
	}
	if d.done > 0 {
		s.progress[msg.ID] = d // Send goes on there
	}
	return sent, false, nil
}

// everLinked says whether a link was registered in this process.
func (s *session) everLinked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wasLinked
}

// expected gives the lines that the message has, or the rest of those that were confirmed.
func (s *session) expected(ctx context.Context, l *link, msg *bridge.Message) (*delivery, error) {
	compose := func(page string) (*delivery, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d := s.progress[msg.ID]; d != nil && d.done > 0 {
			return &delivery{parts: d.parts, done: d.done, ids: slices.Clone(d.ids)}, nil
		}
		parts, _, err := l.compose(msg.Channel, msg, page)
		return &delivery{parts: parts}, err
	}
	d, err := compose("")
	if errors.Is(err, errPageWanted) {
		page, err := msg.TextLink(ctx)
		if err != nil {
			return nil, err
		}
		return compose(page)
	}
	return d, err
}

// ownLines gives what we said in a channel since a time, in order. That the history reaches back so far must show: a server that
// was restarted may have forgotten what was said.
func (s *session) ownLines(ctx context.Context, l *link, channel string, since time.Time) ([]ircmsg.Message, error) {
	before, err := s.askAndWait(ctx, l, channel, "BEFORE", stamp(since), 1)
	if err != nil {
		return nil, err
	}
	var own []ircmsg.Message
	for reference, n := stamp(since), 0; n < settlePages; n++ {
		s.mu.Lock()
		limit := l.page()
		s.mu.Unlock()
		lines, err := s.askAndWait(ctx, l, channel, "AFTER", reference, limit)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		for _, m := range lines {
			if _, id := m.GetTag("msgid"); l.isOurs(&m) && id != "" {
				own = append(own, m)
			}
		}
		s.mu.Unlock()
		if len(lines) < limit {
			if len(before) == 0 && len(own) == 0 {
				return nil, bridge.InDoubt(fmt.Errorf("%w of that time", errNoHistory))
			}
			return own, nil
		}
		_, id := lines[len(lines)-1].GetTag("msgid")
		if id == "" {
			break
		}
		reference = "msgid=" + id
	}
	return nil, bridge.InDoubt(errors.New("too much was said since"))
}

// askAndWait asks for the history, and waits for the answer.
func (s *session) askAndWait(ctx context.Context, l *link, channel, sub, reference string, limit int) ([]ircmsg.Message, error) {
	type answer struct {
		lines []ircmsg.Message
		err   error
	}
	got := make(chan answer, 1)
	s.mu.Lock()
	l.ask(channel, sub, reference, limit, func(lines []ircmsg.Message, err error) { got <- answer{lines, err} })
	s.mu.Unlock()
	select {
	case a := <-got:
		if a.err != nil {
			return nil, bridge.InDoubt(a.err)
		}
		return a.lines, nil
	case <-l.ended:
		return nil, s.offline("the link was lost while it gave its history")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
