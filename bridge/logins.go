package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// This file is Matrix users' own logins: a Session each, beside the relay's. They are few, and one setting of the store keeps them all.

const loginsKey = "logins"

// logins are those of Matrix users.
type logins struct {
	mu   sync.Mutex
	of   map[id.UserID]*ownLogin
	ever atomic.Bool // there are some, or were: the network may give us back what they have said
}

// ownLogin is a login with its Session, which sits in the channels whose rooms the user is in.
type ownLogin struct {
	*Login
	session Session
	look    chan struct{} // to see whether it sits where it should
	stop    context.CancelFunc
	ended   chan struct{}
}

func (ls *logins) get(user id.UserID) *ownLogin {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.of[user]
}

func (ls *logins) all() (list []*ownLogin) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.of {
		list = append(list, l)
	}
	return list
}

// look has every login see whether it sits where it should.
func (ls *logins) look() {
	for _, l := range ls.all() {
		l.wake()
	}
}

func (l *ownLogin) wake() {
	select {
	case l.look <- struct{}{}:
	default:
	}
}

// storedLogins are those of the store, in the order in which they were made.
func (b *Bridge) storedLogins(ctx context.Context) (list []*Login, err error) {
	data, err := b.store.Setting(ctx, loginsKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the logins: %w", err)
	}
	b.logins.ever.Store(true) // the setting stays when the last has ended
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("reading the logins: %w", err)
	}
	return list, nil
}

// openLogins opens those of the store. One that cannot be opened is none: the relay speaks for its user.
func (b *Bridge) openLogins(list []*Login) {
	if _, ok := b.network.(LoginMaker); !ok {
		return
	}
	for _, login := range list {
		b.openLogin(login)
	}
}

func (b *Bridge) openLogin(login *Login) {
	b.logins.mu.Lock()
	defer b.logins.mu.Unlock()
	if b.logins.of[login.User] != nil || b.running.Err() != nil || b.draining.Load() {
		return
	}
	session, err := b.network.Open(b.running, login, &sink{b, login.User})
	if err != nil {
		b.log.Error().Err(err).Stringer("user", login.User).Msg("The user's login cannot be opened; the relay speaks for them")
		return
	}
	ctx, stop := context.WithCancel(b.running)
	l := &ownLogin{Login: login, session: session, look: make(chan struct{}, 1), stop: stop, ended: make(chan struct{})}
	b.logins.of[login.User] = l
	if !b.goroutine(func() { b.tendLogin(ctx, l) }) {
		close(l.ended)
	}
	l.wake()
}

// close ends a login's session. Its goroutine ends first: it may be waiting for the session.
func (l *ownLogin) close(ctx context.Context) error {
	l.stop()
	<-l.ended
	return l.session.Close(ctx)
}

// closeLogins closes all at once.
func (b *Bridge) closeLogins(ctx context.Context) error {
	list := b.logins.all()
	errs := make(chan error)
	for _, l := range list {
		go func() { errs <- l.close(ctx) }()
	}
	var all []error
	for range list {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// tendLogin keeps a login's session in the channels of the rooms that its user is in.
func (b *Bridge) tendLogin(ctx context.Context, l *ownLogin) {
	defer close(l.ended)
	joiner, ok := l.session.(ChannelJoiner)
	if !ok {
		return
	}
	in := map[string]bool{}
	for {
		var again <-chan time.Time
		wanted := map[string]bool{}
		for _, p := range b.portals.all() {
			membership, err := b.store.Member(ctx, string(p.Room), string(l.User))
			if err == nil && membership == "join" {
				wanted[p.Channel] = true
			}
		}
		for channel := range in {
			if !wanted[channel] {
				b.within(ctx, func(ctx context.Context) { _ = joiner.LeaveChannel(ctx, channel) })
				delete(in, channel)
			}
		}
		for channel := range wanted {
			if in[channel] {
				continue
			}
			b.within(ctx, func(ctx context.Context) {
				err := joiner.JoinChannel(ctx, channel)
				if in[channel] = err == nil || IsPermanent(err); !in[channel] {
					again = time.After(joinTimeout)
				}
				if err != nil && ctx.Err() == nil {
					b.log.Info().Err(err).Stringer("user", l.User).Str("channel", channel).Msg("A user's login does not come into a channel")
				}
			})
		}
		select {
		case <-l.look:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Bridge) within(ctx context.Context, f func(ctx context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	f(ctx)
}

// putLogins is the effect that keeps these.
func putLogins(list []*Login) appservice.Effect {
	return func(tx *store.Tx) error { return tx.PutSetting(loginsKey, mustJSON(list)) }
}

// commandLogin is for the homeserver's own people: each login is a connection that the network counts.
func (b *Bridge) commandLogin(ctx context.Context, call *call) (string, []appservice.Effect, error) {
	maker := b.network.(LoginMaker)
	if call.sender.Homeserver() != b.cfg.Homeserver.Domain {
		return "Only users of " + b.cfg.Homeserver.Domain + " can have a login.", nil, nil
	}
	b.loginMu.Lock()
	defer b.loginMu.Unlock()
	list, err := b.storedLogins(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, other := range list {
		if other.User == call.sender {
			return fmt.Sprintf("You have a login already. Write first: %s logout", b.command), nil, nil
		}
	}
	data, err := maker.MakeLogin(call.sender, call.args, list)
	if err != nil {
		return "You get no login: " + clip(err.Error()) + ".", nil, nil
	}
	login := &Login{ID: string(call.sender), User: call.sender, Data: data}
	// Committed here, and not as an effect, so that nobody else counts or takes the same meanwhile; doing it again finds it there.
	if err := b.apply(ctx, putLogins(append(list, login))); err != nil {
		return "", nil, err
	}
	b.logins.ever.Store(true)
	b.openLogin(login)
	return fmt.Sprintf("What you write goes to %s from a connection of your own now, once that is there. %s logout ends it.", b.info.Name, b.command), nil, nil
}

func (b *Bridge) commandLogout(ctx context.Context, call *call) (string, []appservice.Effect, error) {
	b.loginMu.Lock()
	defer b.loginMu.Unlock()
	list, err := b.storedLogins(ctx)
	if err != nil {
		return "", nil, err
	}
	var kept []*Login
	for _, other := range list {
		if other.User != call.sender {
			kept = append(kept, other)
		}
	}
	if len(kept) == len(list) {
		return "You have no login.", nil, nil
	}
	if err := b.apply(ctx, putLogins(kept)); err != nil {
		return "", nil, err
	}
	b.logins.mu.Lock()
	l := b.logins.of[call.sender]
	delete(b.logins.of, call.sender)
	b.logins.mu.Unlock()
	if l != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if err := l.close(closing); err != nil {
			b.log.Warn().Err(err).Stringer("user", l.User).Msg("A user's login did not close in time")
		}
	}
	return fmt.Sprintf("Your login has ended: I speak for you on %s again.", b.info.Name), nil, nil
}

// speakers are the sessions through which a user's message may have gone: their own, if there is one, and the relay's.
func (b *Bridge) speakers(user id.UserID) []Session {
	if own := b.logins.get(user); own != nil {
		return []Session{own.session, b.session()}
	}
	return []Session{b.session()}
}

// ownWords says whether what a network delivers is what a login has said: whoever sits in the channel beside it sees that.
func (b *Bridge) ownWords(ctx context.Context, in *Incoming) (bool, error) {
	if in.ID == "" || in.Text == nil && in.File == nil || !b.logins.ever.Load() {
		return false, nil
	}
	found, err := b.store.MessagesByRemote(ctx, in.Channel, in.ID)
	return len(found) > 0 && found[0].FromMatrix, err
}
