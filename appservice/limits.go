package appservice

import (
	"context"
	"net/http"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"
)

const (
	minLimitWait = 100 * time.Millisecond
	maxLimitWait = 30 * time.Second // that a request is held back here, in all; what takes longer is its caller's
	maxHold      = 10 * time.Minute // after that one request asks again, whatever the homeserver said
	limitTries   = 8                // requests made for one, when each is answered 429
	// carefulFor is how long, after a limit has ended, requests under it go one at a time: the homeserver has room for one
	// more, and not for all that have waited.
	carefulFor = time.Minute
	// loginTimeout ends a registration or a new device that is not answered: others wait for their turn behind it.
	loginTimeout = 30 * time.Second
	// turnPatience is how long who does not wait for limits waits for a turn all the same: turns are short, unless the
	// homeserver does not answer.
	turnPatience = 5 * time.Second
)

type impatient struct{}

// Impatient makes requests under ctx end at once when a rate limit holds them back, with an error that [RetryAfter] reads,
// instead of waiting for up to half a minute. It is for callers that have a queue, and work for others meanwhile.
func Impatient(ctx context.Context) context.Context { return context.WithValue(ctx, impatient{}, true) }

// limits are the rate limits that the homeserver has told of: of one user and class, of a class for all, and of everything.
// What is known to be refused is not sent. Nobody waits for somebody else's limit, and what waits for its own holds no
// turn. A join may be refused for the sake of the room (Synapse: rc_joins_per_room), which the answer does not tell: when a second
// ghost is refused there, it holds all who want to come in. Registrations and new devices go one at a time, limit or not, and so do joins into one room.
type limits struct {
	quit  <-chan struct{} // of the appservice: nothing is waited for any more
	bot   id.UserID
	count func(c class, outcome string)
	mu    sync.Mutex
	holds map[holdKey]*hold
}

// holdKey names what is held: all users when user is "", all classes when class is "".
type holdKey struct {
	user  id.UserID
	class class
	room  string // of joins
}

// oneAtATime says whether that goes one at a time, limit or not, so that one refusal tells all who wait. Homeservers do joins
// into one room one after the other anyway.
func (k holdKey) oneAtATime() bool { return k == holdKey{class: classLogins} || k.room != "" }

type hold struct {
	until    time.Time // before that, nothing goes
	careful  time.Time // before that, one at a time
	refusals int       // in a row
	suspect  id.UserID // of a room: who was refused first, while it can be that user's own limit
	turn     chan struct{}
	users    int // how many wait for the turn, or have it

	// From the second refusal on it is known how much room there is, and one request follows the other at that pace.
	free  time.Time     // when there was room, as the homeserver said at the last refusal
	fit   int           // how many requests have passed since then
	pace  time.Duration // between two; 0: not known
	paced int           // how many have kept to it
}

// outlive forgets what was seen of a limit that has ended: what has passed since then was not held up by it, and the time
// between says nothing of a pace.
func (h *hold) outlive(now time.Time) bool {
	if !now.After(h.careful) {
		return false
	}
	h.refusals, h.free, h.fit, h.pace = 0, time.Time{}, 0, 0
	return true
}

// quicken is after how many requests the pace is quickened by a tenth, to see whether there is more room.
const quicken = 20

func newLimits(bot id.UserID, quit <-chan struct{}, count func(class, string)) *limits {
	return &limits{quit: quit, bot: bot, count: count, holds: make(map[holdKey]*hold)}
}

// concerns gives what can hold a request back, in the order in which turns are taken.
func (l *limits) concerns(a act) []holdKey {
	keys := []holdKey{{}, {class: a.class}}
	if a.user != "" && a.user != l.bot && a.class != classLogins {
		keys = append(keys, holdKey{user: a.user, class: a.class})
		if a.room != "" {
			keys = append(keys, holdKey{class: a.class, room: a.room})
		}
	}
	return keys
}

// enter lets a request go when it is its turn and nothing holds it back, waiting for limits as long as patience allows.
// wait is how much longer a limit holds it back, when it may not go; with an error it may not go either. leave must be
// called after the answer.
func (l *limits) enter(ctx context.Context, a act, patience *time.Duration) (leave func(), wait time.Duration, err error) {
	for {
		if wait = l.held(a); wait == 0 {
			turn, cancel := ctx, context.CancelFunc(func() {})
			if *patience == 0 {
				turn, cancel = context.WithTimeout(ctx, turnPatience)
			}
			leave, err = l.takeTurns(turn, a)
			cancel()
			switch {
			case err != nil && ctx.Err() == nil && turn.Err() != nil:
				l.count(a.class, "held")
				return nil, turnPatience, nil
			case err != nil:
				return nil, 0, err
			}
			if wait = l.held(a); wait == 0 { // nobody was refused before it was our turn
				return leave, 0, nil
			}
			leave()
		}
		if wait > *patience {
			l.count(a.class, "held")
			return nil, wait, nil
		}
		*patience -= wait
		l.count(a.class, "waited")
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, 0, ctx.Err()
		case <-l.quit:
			timer.Stop()
			return nil, wait, nil
		}
	}
}

// held gives how long a request is held back from now on.
func (l *limits) held(a act) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range l.concerns(a) {
		if h := l.holds[key]; h != nil {
			wait = max(wait, time.Until(h.until))
		}
	}
	return wait
}

// takeTurns waits until nobody else does what has to be done one at a time.
func (l *limits) takeTurns(ctx context.Context, a act) (leave func(), err error) {
	var taken, wanted []*hold
	var keys []holdKey
	now := time.Now()
	l.mu.Lock()
	for _, key := range l.concerns(a) {
		h := l.holds[key]
		always := key.oneAtATime()
		if h == nil && always {
			h = l.hold(key)
		}
		if h != nil && key.class != "" && (now.Before(h.careful) || always) {
			h.users++
			wanted, keys = append(wanted, h), append(keys, key)
		}
	}
	l.mu.Unlock()
	leave = func() {
		for _, h := range taken {
			<-h.turn
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		for n, h := range wanted {
			h.users--
			l.forget(keys[n], h)
		}
	}
	for _, h := range wanted {
		select {
		case h.turn <- struct{}{}:
			taken = append(taken, h)
		case <-ctx.Done():
			leave()
			return nil, ctx.Err()
		case <-l.quit:
			leave()
			return nil, errStopped
		}
	}
	return leave, nil
}

func (l *limits) hold(key holdKey) *hold {
	h := l.holds[key]
	if h == nil {
		h = &hold{turn: make(chan struct{}, 1)}
		l.holds[key] = h
	}
	return h
}

// refused notes a 429, and gives how long the homeserver asked to wait, or our own backoff where it did not say. What does
// not come from a homeserver (matrix is false) comes from something in front of it, which knows addresses and no users.
func (l *limits) refused(a act, resp *http.Response, matrix bool, body []byte) time.Duration {
	key := holdKey{user: a.user, class: a.class}
	switch {
	case !matrix:
		key = holdKey{}
	case a.user == "" || a.user == l.bot || a.class == classLogins:
		key = holdKey{class: a.class}
	}
	l.count(a.class, "refused")
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hold(key)
	h.outlive(time.Now())
	h.refusals++
	wait, known := askedWait(resp.Header, body)
	if !known {
		wait = backoff(h.refusals)
	}
	wait = max(wait, minLimitWait)
	until := time.Now().Add(min(wait, maxHold))
	h.refuse(until)
	if key.user != "" && a.room != "" {
		l.suspectRoom(a, until)
	}
	for key, h := range l.holds { // there are as many as users were limited within minutes
		l.forget(key, h)
	}
	return wait
}

// refuse notes until when nothing goes.
func (h *hold) refuse(until time.Time) {
	if h.fit > 0 && until.After(h.free) {
		h.pace, h.paced = until.Sub(h.free)/time.Duration(h.fit), 0
	}
	h.free, h.fit = until, 0
	if until.After(h.until) {
		h.until, h.careful = until, until.Add(carefulFor)
	}
}

// suspectRoom lets the joins into a room go one at a time once a ghost was refused there, and holds them all once a second
// one was.
func (l *limits) suspectRoom(a act, until time.Time) {
	key := holdKey{class: a.class, room: a.room}
	if h := l.holds[key]; h != nil {
		l.forget(key, h)
	}
	h := l.hold(key)
	if h.free.IsZero() && (h.suspect == "" || h.suspect == a.user) {
		h.suspect, h.careful = a.user, until.Add(carefulFor)
		return
	}
	h.refusals++
	h.refuse(until)
}

// passed notes that a request was not limited.
func (l *limits) passed(a act) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, key := range l.concerns(a) {
		h := l.holds[key]
		if h == nil || h.free.IsZero() || now.Before(h.free) { // the latter was under way when others were refused
			continue
		}
		if h.outlive(now) {
			continue
		}
		h.refusals = 0
		h.fit++
		if h.pace == 0 {
			continue
		}
		if h.paced++; h.paced%quicken == 0 {
			h.pace -= h.pace / 10
		}
		if h.until = h.until.Add(h.pace); h.until.Before(now) {
			h.until = now.Add(h.pace)
		}
		h.careful = h.until.Add(carefulFor)
	}
}

// forget forgets a limit that has ended.
func (l *limits) forget(key holdKey, h *hold) {
	if h.users == 0 && time.Now().After(h.careful) {
		delete(l.holds, key)
	}
}
