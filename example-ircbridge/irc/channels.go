package irc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// channel is one channel that the session is in, or wants to be in. The session's lock guards it.
type channel struct {
	name    string // as the portal has it
	wanted  bool
	joining bool // JOIN is sent, and neither confirmed nor refused
	joined  bool
	before  bool // it was joined at some time
	kicked  string
	waiting []chan error // for joining
	leaving []chan error
	members map[string]string // folded nick to nick, without us
	listing map[string]string // members, while NAMES is under way
}

// decide tells whoever waits for the joining how it ended.
func (ch *channel) decide(err error) {
	ch.joining = false
	for _, w := range ch.waiting {
		w <- err
	}
	ch.waiting = nil
}

func (ch *channel) left() {
	ch.joined, ch.joining, ch.members, ch.listing = false, false, nil, nil
	for _, w := range ch.leaving {
		w <- nil
	}
	ch.leaving = nil
}

// unlink is the loss of the link. Whoever waits for the joining goes on waiting.
func (ch *channel) unlink() { ch.left() }

func (ch *channel) add(folded, nick string) {
	ch.members[folded] = nick
	if ch.listing != nil {
		ch.listing[folded] = nick
	}
}

// remove takes a member out, and reports whether it was one.
func (ch *channel) remove(folded string) bool {
	_, known := ch.members[folded]
	delete(ch.members, folded)
	delete(ch.listing, folded)
	return known
}

// JoinChannel implements [bridge.ChannelJoiner].
func (s *session) JoinChannel(ctx context.Context, name string) error {
	name, err := (*Network)(nil).Channel(name)
	if err != nil {
		return bridge.Permanent(err)
	}
	done := make(chan error, 1)
	s.mu.Lock()
	ch, err := s.want(name)
	if err != nil || ch.joined {
		s.mu.Unlock()
		return err
	}
	ch.waiting = append(ch.waiting, done)
	if s.link != nil && !ch.joining {
		s.link.join(ch)
	}
	s.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		s.mu.Lock()
		ch.waiting = slices.DeleteFunc(ch.waiting, func(w chan error) bool { return w == done })
		s.mu.Unlock()
		return fmt.Errorf("waiting to join %s: %w", name, ctx.Err())
	case <-s.ctx.Done():
		return errClosed
	}
}

// want makes the channel one to be in. The caller holds the lock.
func (s *session) want(name string) (*channel, error) {
	if s.stopped != nil {
		return nil, s.stopped
	}
	folded := s.mapping.Fold(name)
	ch := s.channels[folded]
	if ch == nil {
		ch = &channel{name: name}
		s.channels[folded] = ch
	}
	if ch.name != name {
		return nil, bridge.Permanent(sameChannel(name, ch.name))
	}
	ch.wanted, ch.kicked = true, ""
	return ch, nil
}

func sameChannel(a, b string) error {
	return fmt.Errorf("%s is the same channel as %s on this network, which is bridged already", a, b)
}

// LeaveChannel implements [bridge.ChannelJoiner].
func (s *session) LeaveChannel(ctx context.Context, name string) error {
	s.mu.Lock()
	folded := s.mapping.Fold(name)
	ch := s.channels[folded]
	if ch == nil {
		s.mu.Unlock()
		return nil
	}
	ch.wanted = false
	ch.decide(errors.New("the channel is to be left"))
	if s.link == nil || !ch.joined {
		delete(s.channels, folded)
		s.mu.Unlock()
		return nil
	}
	done := make(chan error, 1)
	ch.leaving = append(ch.leaving, done)
	s.link.send("PART", ch.name)
	s.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting to leave %s: %w", name, ctx.Err())
	case <-s.ctx.Done():
		return nil
	}
}

// join sends the JOIN of one channel.
func (l *link) join(ch *channel) {
	ch.joining = true
	if key := l.key(ch); key != "" {
		l.send("JOIN", ch.name, key)
	} else {
		l.send("JOIN", ch.name)
	}
}

func (l *link) key(ch *channel) string {
	for name, key := range l.session.config.Keys {
		if l.fold(name) == l.fold(ch.name) {
			return key
		}
	}
	return ""
}

// joinAll joins every wanted channel, several with one line, because each line costs time. From a channel that we were
// kicked from we stay away.
func (l *link) joinAll() {
	var together []string
	length := 0
	flush := func() {
		if len(together) > 0 {
			l.send("JOIN", strings.Join(together, ","))
		}
		together, length = nil, 0
	}
	for _, ch := range l.session.channels {
		switch {
		case !ch.wanted || ch.kicked != "":
		case l.key(ch) != "":
			l.join(ch)
		default:
			if length+len(ch.name) > 400 || len(together) == 10 {
				flush()
			}
			ch.joining = true
			together = append(together, ch.name)
			length += len(ch.name) + 1
		}
	}
	flush()
}

// rekey files everything under the folds of the network's casemapping. The caller holds the lock.
func (s *session) rekey(mapping casemap.Mapping) {
	if mapping == s.mapping {
		return
	}
	s.mapping = mapping
	channels := make(map[string]*channel, len(s.channels))
	for _, ch := range s.channels {
		folded := mapping.Fold(ch.name)
		if other := channels[folded]; other != nil {
			ch.wanted = false
			ch.decide(bridge.Permanent(sameChannel(ch.name, other.name)))
			continue
		}
		channels[folded] = ch
		ch.members = refold(ch.members, mapping)
		ch.listing = refold(ch.listing, mapping)
	}
	s.channels = channels
}

func refold(nicks map[string]string, mapping casemap.Mapping) map[string]string {
	if nicks == nil {
		return nil
	}
	folded := make(map[string]string, len(nicks))
	for _, nick := range nicks {
		folded[mapping.Fold(nick)] = nick
	}
	return folded
}

// in finds a channel that we are in and want to be in.
func (l *link) in(name string) *channel {
	if ch := l.session.channels[l.session.mapping.Fold(name)]; ch != nil && ch.joined && ch.wanted {
		return ch
	}
	return nil
}
