//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

const (
	// syncWait is how long an answer of /sync may wait for something new; syncShort the same while others wait for their turn.
	syncWait, syncShort = 30 * time.Second, time.Second
	// syncInUse is for how long after its last use a device goes on asking. The bot never stops.
	syncInUse = 5 * time.Minute
	// syncSweep is how often every device asks once although transactions bring everything: see syncer.
	syncSweep = time.Hour
)

// syncer asks for keys with /sync, where transactions do not bring them (MSC3202), and for those devices that are in use. What the
// homeserver's transactions bring is found out by a message of a device to itself.
//
// Where they bring everything, /sync mends what was lost: while an appservice is down Synapse drops what its transactions would have
// brought, and it keeps the messages for /sync all the same. So each device asks once after its first use, when a key is missing, and
// every hour. Messages that came before change nothing.
type syncer struct {
	c       *Crypto
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	turns   chan struct{} // holds one for each request
	again   chan struct{} // holds one while every device is to ask once more
	times   probing

	mu      sync.Mutex
	devices map[deviceKey]*deviceSync
	known   bool // it was found out what transactions bring
	carried bool // they bring everything
	probing bool
}

// deviceSync is a device that may ask. All is the syncer's mu's.
type deviceSync struct {
	until  time.Time // it is in use until then
	once   bool      // it is to ask once, whatever transactions bring
	active bool      // somebody asks for it
}

func newSyncer(c *Crypto) *syncer {
	s := &syncer{c: c, turns: make(chan struct{}, appservice.MaxKeySyncs), again: make(chan struct{}, 1), times: usualProbing, devices: map[deviceKey]*deviceSync{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if c.opts.probing != nil {
		s.times = *c.opts.probing
	}
	s.known = c.opts.Sync != SyncAuto
	s.carried = c.opts.Sync == SyncNever
	if c.opts.Sync != SyncNever {
		s.running.Go(func() { s.sweep() })
	}
	return s
}

func (s *syncer) close() {
	s.stop()
	s.running.Wait()
}

// need says that a device is in use.
func (s *syncer) need(key deviceKey) { s.want(key, false) }

// missing says that a device has not got a key that was sent to it.
func (s *syncer) missing(key deviceKey) { s.want(key, true) }

func (s *syncer) want(key deviceKey, once bool) {
	if s.c.opts.Sync == SyncNever || s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known && !s.probing {
		s.probing = true
		s.running.Go(func() { s.probe(key) })
	}
	d := s.devices[key]
	if d == nil {
		d = &deviceSync{}
		s.devices[key] = d
	}
	d.until = time.Now().Add(syncInUse)
	d.once = d.once || once
	s.start(key, d)
}

// start begins to ask for a device, if it is to. The caller holds mu.
func (s *syncer) start(key deviceKey, d *deviceSync) {
	if !d.active && s.ctx.Err() == nil && s.mustAsk(key, d) {
		d.active = true
		s.running.Go(func() { s.run(key, d) })
	}
}

// mustAsk says whether a device has to ask now. The bot may have been wanted before it is known what the homeserver is: it is given its keys first of
// all after a start. The caller holds mu.
func (s *syncer) mustAsk(key deviceKey, d *deviceSync) bool {
	if key.user == s.c.as.Bot().UserID() && !s.c.as.BotSyncs() {
		d.once = false
		return false // others stand in for it: standin.go
	}
	inUse := key.user == s.c.as.Bot().UserID() || time.Now().Before(d.until)
	return d.once || s.known && !s.carried && inUse
}

// run asks for one device until it need not any more.
func (s *syncer) run(key deviceKey, d *deviceSync) {
	since, err := s.since(key)
	for pause := time.Second; s.ctx.Err() == nil; {
		if err == nil {
			var again bool
			if again, err = s.ask(key, d, &since); err == nil && !again {
				return
			}
		}
		if err == nil {
			pause = time.Second
			continue
		}
		if s.ctx.Err() == nil {
			s.c.log.Warn().Err(err).Stringer("user_id", key.user).Stringer("device_id", key.device).Dur("again_in", pause).Msg("A device could not ask for its keys")
		}
		select {
		case <-s.ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Minute)
		if since == "" {
			since, err = s.since(key)
		} else {
			err = nil
		}
	}
}

// ask asks once, in its turn, and says whether to go on.
func (s *syncer) ask(key deviceKey, d *deviceSync, since *string) (again bool, err error) {
	s.mu.Lock()
	once := d.once
	if d.active = s.ctx.Err() == nil && s.mustAsk(key, d); !d.active {
		s.mu.Unlock()
		return false, nil
	}
	s.mu.Unlock()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-s.ctx.Done():
		return true, nil
	}
	wait := syncWait
	switch {
	case once:
		wait = 0
	case len(s.turns) == cap(s.turns):
		wait = syncShort
	}
	got, err := s.c.as.Ghost(key.user).SyncKeys(s.ctx, key.device, *since, wait)
	if errors.Is(err, appservice.ErrDeviceGone) {
		s.forget(key, d)
		return false, nil
	}
	if err != nil {
		return true, err
	}
	forward := got.Next != *since
	if forward {
		if err := s.c.commit(s.ctx, func(_ context.Context, tx *store.Tx) error {
			return tx.PutSetting(sinceSetting(key), []byte(got.Next))
		}); err != nil {
			return true, err
		}
		*since = got.Next
	}
	if once && (got.Messages == 0 || !forward) {
		s.mu.Lock()
		d.once = false
		s.mu.Unlock()
	}
	return true, nil
}

// forget ends the asking for a device that the homeserver has no longer.
func (s *syncer) forget(key deviceKey, d *deviceSync) {
	s.mu.Lock()
	d.active = false
	delete(s.devices, key)
	s.mu.Unlock()
	err := s.c.commit(s.ctx, func(_ context.Context, tx *store.Tx) error { return tx.PutSetting(sinceSetting(key), nil) })
	if err != nil && s.ctx.Err() == nil {
		s.c.log.Warn().Err(err).Stringer("user_id", key.user).Msg("How far a device that is gone had asked for its keys could not be forgotten")
	}
}

func sinceSetting(key deviceKey) string { return "crypto.since " + key.account() }

// since is how far a device has asked.
func (s *syncer) since(key deviceKey) (string, error) {
	value, err := s.c.store.Setting(s.ctx, sinceSetting(key))
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return string(value), err
}

// sweep lets each device ask once, one after the other, and finds out again what transactions bring.
func (s *syncer) sweep() {
	for next := 10 * time.Second; ; next = syncSweep {
		probe := next == syncSweep
		select {
		case <-s.ctx.Done():
			return
		case <-s.again:
			probe = false
		case <-time.After(next):
		}
		s.mu.Lock()
		var keys []deviceKey
		for key, d := range s.devices {
			if !d.active && s.known && s.carried {
				keys = append(keys, key)
			}
		}
		s.mu.Unlock()
		if len(keys) > 0 && s.c.opts.Sync == SyncAuto && probe {
			s.probe(keys[0])
		}
		for _, key := range keys {
			s.missing(key)
			for s.asks(key) && s.ctx.Err() == nil {
				time.Sleep(100 * time.Millisecond)
			}
		}
	}
}

// askAgain has every device ask once more, soon.
func (s *syncer) askAgain() {
	select {
	case s.again <- struct{}{}:
	default:
	}
}

func (s *syncer) asks(key deviceKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[key]
	return d != nil && d.once
}

var usualProbing = probing{15 * time.Second, time.Minute}

const probePause = 100 * time.Millisecond

// probe finds out what transactions bring, by a message of a device to itself, and goes on until they bring everything: a homeserver that could
// not reach the bridge before its start may have dropped the message, and a slow one be late. Any other message and counts show it as well.
func (s *syncer) probe(key deviceKey) {
	messages, counts := s.c.as.CarriedKeys()
	carried := func() bool {
		nowMessages, nowCounts := s.c.as.CarriedKeys()
		return nowMessages > messages && nowCounts > counts
	}
	failing := time.Second
	for pause := s.times.again; s.ctx.Err() == nil; {
		if err := s.sendProbe(key); err != nil {
			s.c.log.Debug().Err(err).Msg("What transactions bring could not be tried")
			if s.await(failing, carried) {
				break
			}
			failing = min(2*failing, time.Minute)
			continue
		}
		if s.await(s.times.wait, carried) {
			break
		}
		s.found(false)
		if s.await(pause, carried) {
			break
		}
		pause = min(2*pause, syncSweep)
	}
	s.found(true)
}

// await waits until something is so, for as long as that at most.
func (s *syncer) await(most time.Duration, is func() bool) bool {
	for end := time.Now().Add(most); !is(); {
		if !time.Now().Before(end) {
			return false
		}
		select {
		case <-s.ctx.Done():
			return false
		case <-time.After(probePause):
		}
	}
	return true
}

// found takes in what transactions bring.
func (s *syncer) found(carried bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	if !s.known || s.carried != carried {
		s.c.log.Info().Bool("transactions_bring_keys", carried).Msg("It was found out whether transactions bring to-device messages and key counts; without them devices ask with /sync")
		if !carried && !s.c.as.BotSyncs() {
			s.c.log.Warn().Msg("This homeserver answers /sync to ghosts alone, and the bot gets no keys: it reads only where a ghost with keys is in the room; mode bot makes none. Switch on what the subcommand check names")
		}
	}
	s.known, s.carried = true, carried
	for key, d := range s.devices {
		s.start(key, d)
	}
}

func (s *syncer) sendProbe(key deviceKey) error {
	cli := s.c.as.Ghost(key.user).Client(key.device)
	url := cli.BuildClientURL("v3", "sendToDevice", appservice.KeyProbe, fmt.Sprint("probe", time.Now().UnixNano()))
	body := map[string]any{"messages": map[id.UserID]any{key.user: map[id.DeviceID]any{key.device: struct{}{}}}}
	if _, err := cli.MakeFullRequest(s.ctx, mautrix.FullRequest{Method: "PUT", URL: url, RequestJSON: body}); err != nil {
		return s.c.as.Explain(err)
	}
	return nil
}
