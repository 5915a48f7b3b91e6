package bridgetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// appService is a registered appservice, its interests, and what waits to be sent to it.
type appService struct {
	reg              *Registration
	url              string
	sender           *account
	users            matcher
	aliases          matcher
	rooms            matcher
	exclusiveAliases matcher
	ownership        map[string]bool // what mine answered
	cancel           context.CancelFunc
	wake             chan struct{} // holds one: the pusher has something to look at

	// What no transaction holds yet.
	events    []*pdu
	ephemeral []map[string]any
	toDevice  []map[string]any
	lists     []string
	poison    [sections][]json.RawMessage // for the next transaction
	askedTo   int64                       // up to where in the stream the users of events were asked about

	pending    []*transaction // not acknowledged, oldest first
	up         bool
	prodded    bool // something new came since the last failure
	backoff    int  // exponent of the last pause
	nextTry    time.Time
	abortSend  context.CancelFunc // ends the request under way
	generation int                // counts restarts, which make a request under way forgotten
	sent       int
	failed     int
	lastID     string
}

// AppServiceState is how the homeserver gets on with an appservice.
type AppServiceState struct {
	Up      bool   // false after a failed transaction, until it (of Synapse, all that waited) got through
	Sent    int    // acknowledged transactions
	Failed  int    // attempts that were not acknowledged
	Pending int    // transactions that wait, the one under way included
	Queued  int    // events, ephemeral events and to-device messages that are in no transaction yet
	LastID  string // of the last acknowledged transaction
	// NextTry is when a failed transaction goes again; zero when there is none, or no time says when.
	NextTry time.Time
}

// AddRegistration registers an appservice, whose transactions begin with what happens from now on.
func (hs *Homeserver) AddRegistration(reg *Registration) error {
	if reg.ID == "" || reg.ASToken == "" || reg.HSToken == "" || reg.SenderLocalpart == "" {
		return fmt.Errorf("adding appservice %q: id, as_token, hs_token and sender_localpart must be set", reg.ID)
	}
	copied := *reg
	as := &appService{reg: &copied, url: reg.URL, up: true, wake: make(chan struct{}, 1), ownership: make(map[string]bool)}
	var exclusive []Namespace
	for _, ns := range reg.Namespaces.Aliases {
		if ns.Exclusive {
			exclusive = append(exclusive, ns)
		}
	}
	for _, part := range []struct {
		into *matcher
		from []Namespace
	}{
		{&as.users, reg.Namespaces.Users}, {&as.aliases, reg.Namespaces.Aliases},
		{&as.rooms, reg.Namespaces.Rooms}, {&as.exclusiveAliases, exclusive},
	} {
		m, err := newMatcher(part.from)
		if err != nil {
			return fmt.Errorf("adding appservice %q: %w", reg.ID, err)
		}
		*part.into = m
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.closed {
		return fmt.Errorf("adding appservice %q: the homeserver is closed", reg.ID)
	}
	if hs.services[reg.ID] != nil {
		return fmt.Errorf("adding appservice %q: its ID is taken", reg.ID)
	}
	if hs.serviceByToken(reg.ASToken) != nil {
		return fmt.Errorf("adding appservice %q: its as_token is another's", reg.ID)
	}
	senderID := "@" + reg.SenderLocalpart + ":" + hs.opts.ServerName
	if as.sender = hs.accounts[senderID]; as.sender == nil {
		as.sender = newAccount(senderID)
		hs.accounts[senderID] = as.sender
	}
	hs.services[reg.ID] = as
	ctx, cancel := context.WithCancel(hs.ctx)
	as.cancel = cancel
	hs.wg.Go(func() { hs.push(ctx, as) })
	return nil
}

// AddAppService registers the appservice of a registration file.
func (hs *Homeserver) AddAppService(path string) error {
	reg, err := LoadRegistration(path)
	if err != nil {
		return err
	}
	return hs.AddRegistration(reg)
}

// RemoveAppService forgets an appservice and what waited for it. Its users stay.
func (hs *Homeserver) RemoveAppService(id string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if as := hs.services[id]; as != nil {
		as.stop()
		delete(hs.services, id)
	}
}

// SetAppServiceURL tells where an appservice listens from now on, for bridges that take a free port at every start.
func (hs *Homeserver) SetAppServiceURL(id, url string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if as := hs.services[id]; as != nil {
		as.url = url
		as.nudge()
	}
}

// AppServiceState tells how an appservice is; the zero value when there is none with this ID.
func (hs *Homeserver) AppServiceState(id string) AppServiceState {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	as := hs.services[id]
	if as == nil {
		return AppServiceState{}
	}
	return as.state()
}

func (as *appService) state() AppServiceState {
	return AppServiceState{
		Up: as.up, Sent: as.sent, Failed: as.failed, Pending: len(as.pending), LastID: as.lastID, NextTry: as.nextTry,
		Queued: len(as.events) + len(as.ephemeral) + len(as.toDevice),
	}
}

// WaitAppService waits until the state of an appservice is as cond wants it, and returns that state.
func (hs *Homeserver) WaitAppService(ctx context.Context, id string, cond func(AppServiceState) bool) (AppServiceState, error) {
	for {
		hs.mu.Lock()
		as, changed := hs.services[id], hs.changed
		var state AppServiceState
		if as != nil {
			state = as.state()
		}
		hs.mu.Unlock()
		if cond(state) {
			return state, nil
		}
		if err := hs.await(ctx, changed); err != nil {
			return state, fmt.Errorf("waiting for a state of appservice %q, which is %+v: %w", id, state, err)
		}
	}
}

// Settle waits until every appservice has acknowledged all that was sent to it. After a failure that can be long, or for
// ever: Continuwuity and Tuwunel try again only when there is something new.
func (hs *Homeserver) Settle(ctx context.Context) error {
	for {
		hs.mu.Lock()
		busy, changed := "", hs.changed
		for id, as := range hs.services {
			if as.busy(hs) {
				busy = id
			}
		}
		hs.mu.Unlock()
		if busy == "" {
			return nil
		}
		if err := hs.await(ctx, changed); err != nil {
			return fmt.Errorf("waiting until appservice %q has everything: %w", busy, err)
		}
	}
}

// busy is also an appservice that has acknowledged the last that it was retried with, until it counts as up again.
func (as *appService) busy(hs *Homeserver) bool {
	return as.waiting()+len(as.pending) > 0 || !as.up && hs.started && as.url != "" && hs.traits.family == synapse
}

// waiting is how much is not in a transaction yet.
func (as *appService) waiting() int {
	return len(as.events) + len(as.ephemeral) + len(as.toDevice) + len(as.lists)
}

func (hs *Homeserver) serviceByToken(token string) *appService {
	for _, as := range hs.services {
		if as.reg.ASToken == token {
			return as
		}
	}
	return nil
}

// isSender tells whether a user is the sender_localpart of an appservice.
func (hs *Homeserver) isSender(user string) bool {
	for _, as := range hs.services {
		if as.sender.id == user {
			return true
		}
	}
	return false
}

// mine tells whether a user is the appservice's: its sender, or in its namespaces.
func (as *appService) mine(user string) bool {
	if user == as.sender.id {
		return true
	}
	answer, known := as.ownership[user]
	if !known {
		answer = as.users.match(user)
		as.ownership[user] = answer
	}
	return answer
}

func (as *appService) hasMember(r *room) bool {
	for k, p := range r.state {
		if k.typ == "m.room.member" && p.membership() == "join" && as.mine(k.key) {
			return true
		}
	}
	return false
}

// interestedInRoom decides about ephemeral events.
func (as *appService) interestedInRoom(hs *Homeserver, r *room) bool {
	if as.rooms.match(r.id) || as.hasMember(r) {
		return true
	}
	for id, a := range hs.aliases {
		if a.room == r && as.aliases.match(id) {
			return true
		}
	}
	return false
}

// interested decides about events. Those by and about the appservice's users interest it even when none is left in the
// room.
func (as *appService) interested(hs *Homeserver, p *pdu) bool {
	return as.mine(p.sender) || p.typ == "m.room.member" && p.stateKey != nil && as.mine(*p.stateKey) || as.interestedInRoom(hs, p.room)
}

// interestedInPresence decides about presence: of the appservice's own users, and of those who share a room with it
// (MSC2409).
func (as *appService) interestedInPresence(hs *Homeserver, user string) bool {
	return as.mine(user) || slices.ContainsFunc(hs.roomsOf(user, "join"), func(r *room) bool { return as.interestedInRoom(hs, r) })
}

// wantsEphemeral tells whether the appservice gets ephemeral events and to-device messages.
func (as *appService) wantsEphemeral(hs *Homeserver) bool {
	return hs.traits.ephemeral && as.ephemeralKey(hs) != ""
}

func (as *appService) offerEvent(p *pdu) {
	as.events = append(as.events, p)
	as.prod()
}

func (as *appService) offerEphemeral(hs *Homeserver, event map[string]any) {
	if as.wantsEphemeral(hs) {
		as.ephemeral = append(as.ephemeral, event)
		as.prod()
	}
}

func (as *appService) offerToDevice(message map[string]any) {
	as.toDevice = append(as.toDevice, message)
	as.prod()
}

// nudge makes the pusher look.
func (as *appService) nudge() {
	select {
	case as.wake <- struct{}{}:
	default:
	}
}

func (as *appService) stop() {
	if as.cancel != nil {
		as.cancel()
	}
}
