package irc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// channel is one channel that the session is in, or wants to be in. The session's lock guards it.
type channel struct {
	name    string // as the portal has it
	wanted  bool
	lasting bool // we were in it, or somebody wrote to it: a failed attempt does not end the wish
	joining bool // JOIN is sent, and neither confirmed nor refused
	joined  bool
	parting bool // PART is sent, and not confirmed
	kicked  string
	told    bool         // of the refusal, since the link began
	waiting []chan error // for joining
	leaving []chan error
	timer   *time.Timer       // of the JOIN under way, or until the next
	again   backoff           // of the next, after a refusal that may pass
	members map[string]string // folded nick to nick, without us
	listing map[string]string // members, while NAMES is under way
	ours    []*session        // and those of them that are ours
}

// decide tells whoever waits for the joining how it ended.
func (ch *channel) decide(err error) {
	ch.joining = false
	ch.stopTimer()
	for _, w := range ch.waiting {
		w <- err
	}
	ch.waiting = nil
}

func (ch *channel) stopTimer() {
	if ch.timer != nil {
		ch.timer.Stop()
		ch.timer = nil
	}
}

func (ch *channel) left() {
	ch.joined, ch.parting, ch.members, ch.listing, ch.ours = false, false, nil, nil, nil
	for _, w := range ch.leaving {
		w <- nil
	}
	ch.leaving = nil
}

// unlink is the loss of the link. Whoever waits for the joining goes on waiting.
func (ch *channel) unlink() {
	ch.left()
	ch.stopTimer()
	ch.joining, ch.told = false, false
}

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

// list is who is in it, without us.
func (ch *channel) list(l *link) *bridge.Members {
	users := make([]bridge.RemoteUser, 0, len(ch.members))
	for _, nick := range ch.members {
		users = append(users, l.remote(nick))
	}
	return &bridge.Members{Users: users}
}

// goes tells the others that the session is about to be out of a channel.
func (l *link) goes(ch *channel, how leaving) {
	l.session.crew.leaves(l.session, ch.name, how)
	l.release(ch.name)
}

// release delivers what there is of a channel when the lock is free.
func (l *link) release(name string) {
	s := l.session
	l.after = append(l.after, func() { s.crew.release(s.out, name) })
}

// JoinChannel implements [bridge.ChannelJoiner]. When it fails, for a channel that the session was never in and that nobody
// has written to, it is as if it had not been called.
func (s *session) JoinChannel(ctx context.Context, name string) error {
	name, err := (*Network)(nil).Channel(name)
	if err != nil {
		return bridge.Permanent(err)
	}
	return s.join(ctx, name, false)
}

func (s *session) join(ctx context.Context, name string, written bool) error {
	done := make(chan error, 1)
	s.mu.Lock()
	ch, err := s.want(name)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	kicked := ch.kicked
	ch.kicked, ch.lasting = "", ch.lasting || written
	if ch.joined && !ch.parting {
		s.mu.Unlock()
		return nil
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
	case <-s.ctx.Done():
		return errClosed
	}
	defer s.crew.release(s.out, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case err := <-done:
		return err
	default:
	}
	ch.waiting = slices.DeleteFunc(ch.waiting, func(w chan error) bool { return w == done })
	if !ch.joined && len(ch.waiting) == 0 {
		ch.kicked = kicked
		s.forget(ch)
	}
	return fmt.Errorf("waiting to join %s: %w", name, ctx.Err())
}

// want makes the channel one to be in. The caller holds the lock.
func (s *session) want(name string) (*channel, error) {
	if s.stopped != nil {
		return nil, s.stopped
	}
	folded := s.mapping.Fold(name)
	ch := s.channels[folded]
	if ch == nil {
		ch = &channel{name: name, again: backoff{first: s.config.Reconnect.First, max: s.config.Reconnect.Max}}
		s.channels[folded] = ch
	}
	if ch.name != name {
		return nil, bridge.Permanent(sameChannel(name, ch.name))
	}
	ch.wanted = true
	return ch, nil
}

// forget ends the wish to be in a channel that the session was never in. The caller holds the lock.
func (s *session) forget(ch *channel) {
	if ch.lasting {
		return
	}
	ch.wanted = false
	ch.stopTimer()
	if folded := s.mapping.Fold(ch.name); s.channels[folded] == ch {
		delete(s.channels, folded)
		s.crew.leaves(s, ch.name, leaving{})
	}
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
	ch.decide(bridge.Permanent(errors.New("the channel was given up meanwhile")))
	if s.link == nil || !ch.joined {
		delete(s.channels, folded)
		s.crew.leaves(s, ch.name, leaving{})
		s.mu.Unlock()
		s.crew.release(s.out, ch.name)
		return nil
	}
	done := make(chan error, 1)
	ch.leaving = append(ch.leaving, done)
	if !ch.parting {
		ch.parting = true
		s.crew.parts(s, ch.name)
		s.link.send("PART", ch.name)
	}
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
	l.expect(ch)
	if key := l.key(ch); key != "" {
		l.send("JOIN", ch.name, key)
	} else {
		l.send("JOIN", ch.name)
	}
}

// expect begins the wait for the answer to a JOIN, which may have to wait its own turn first.
func (l *link) expect(ch *channel) {
	ch.joining = true
	l.session.crew.awaits(l.session, ch.name)
	l.timed(ch, l.session.joinWait, func() {
		switch {
		case !ch.joining:
		case l.queue.busy():
			l.expect(ch)
		default:
			l.joinFailed(ch, l.session.offline("no answer to the JOIN of "+ch.name), "has had no answer to its joining "+ch.name)
		}
	})
}

// rejoin tries again after a while.
func (l *link) rejoin(ch *channel) {
	l.timed(ch, ch.again.next(), func() {
		if ch.wanted && !ch.joined && !ch.joining && ch.kicked == "" {
			l.join(ch)
		}
	})
}

// timed sets the channel's one timer. fn runs under the lock, if the link is still there.
func (l *link) timed(ch *channel, wait time.Duration, fn func()) {
	s := l.session
	ch.stopTimer()
	var timer *time.Timer
	timer = s.later(wait, func() {
		s.mu.Lock()
		if s.link == l && ch.timer == timer {
			ch.timer = nil
			fn()
		}
		l.unlock()
	})
	ch.timer = timer
}

// joinFailed ends a JOIN. Who called JoinChannel, or writes, gets the error; after a reconnect nobody did, and the room is
// told, once.
func (l *link) joinFailed(ch *channel, err error, text string) {
	asked := len(ch.waiting) > 0
	if !ch.joined {
		l.goes(ch, leaving{refused: true, barred: bridge.IsPermanent(err)})
	}
	ch.decide(err)
	if !ch.lasting {
		l.session.forget(ch)
		return
	}
	if !bridge.IsPermanent(err) {
		l.rejoin(ch)
	}
	if !asked && !ch.told {
		ch.told = true
		l.online() // who waits to write learns why it cannot be
		l.warn(ch.name, "The bridge "+text+". It tries again when somebody writes, and after the next connection.")
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
// It reports whether there was any.
func (l *link) joinAll() (any bool) {
	var together []string
	length := 0
	flush := func() {
		if len(together) > 0 {
			l.send("JOIN", strings.Join(together, ","))
		}
		together, length = nil, 0
	}
	for _, ch := range l.session.channels {
		if !ch.wanted || ch.kicked != "" {
			continue
		}
		any = true
		switch {
		case l.key(ch) != "":
			l.join(ch)
		default:
			if length+len(ch.name) > 400 || len(together) == 10 {
				flush()
			}
			l.expect(ch)
			together = append(together, ch.name)
			length += len(ch.name) + 1
		}
	}
	flush()
	return any
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
			s.crew.leaves(s, ch.name, leaving{})
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
