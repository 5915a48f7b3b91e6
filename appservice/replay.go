package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

const (
	badStarts = 3 // starts that did not end well, one after the other, before the next replays with care
	maxAlone  = 3 // processes that may end over an event that was alone under way
	// provenAfter is how long a process lives at least before its start counts as a good one; provenWithin is when it
	// does so whatever still waits.
	provenAfter  = time.Minute
	provenWithin = 10 * time.Minute
	// suspectPause is how long after the start an event waits over which a process has ended before, alone or twice in a
	// row; twice as long for each time more. A process that is killed from outside, again and again and soon after each
	// start, so ends without it, and it is not blamed.
	suspectPause = 2 * time.Second
	// slowTurn is how long a turn of the careful replay may hold the others up.
	slowTurn = 30 * time.Second
)

// startsSetting is where the store keeps a startRecord. There is none once a process is proven or has stopped well.
const startsSetting = "appservice.starts"

// startRecord is what a process leaves for the next one.
type startRecord struct {
	// Bad counts the starts up to this one that did not end well: by Stop, or by being proven.
	Bad int `json:"bad"`
	// Careful says that the process tried one turn at a time, and Tried which: more than one only where one was slow.
	Careful bool        `json:"careful,omitempty"`
	Tried   []triedTurn `json:"tried,omitempty"`
	// Suspects are lanes of which a turn of several events was alone under way when an earlier process ended.
	Suspects [][]byte `json:"suspects,omitempty"`
}

// triedTurn is a turn that was under way. Lanes are kept as bytes: they need not be UTF-8.
type triedTurn struct {
	Lane  []byte `json:"lane"`
	Seq   int64  `json:"seq"`
	Pos   uint32 `json:"pos"`
	Alone bool   `json:"alone,omitempty"` // it was of one event
}

func (t triedTurn) is(ref store.Ref) bool { return t.Alone && t.Seq == ref.Seq && t.Pos == ref.Pos }

// replay sees to it that an event that ends the process, whether by a crash, by the memory it takes or by os.Exit, does
// not do so for ever.
//
// Each start is written down before anything is tried, and struck out when the process stops well or is proven: what it
// found waiting has been tried, as far as it can have been under way when the process before ended, and a minute has
// passed. After three that were not, lanes take their turns one at a time, each with a mark in the store: the first turn
// of each lane is of its head alone. When the process ends again the mark says over what. Over one event: that counts
// against it (it is then tried some seconds after the start, lest it be blamed for what kills the process from
// outside), and after three times it becomes a dead letter. Over a turn of several: the next process gives that lane
// one event at a time, before all others.
type replay struct {
	as      *AppService
	slow    time.Duration // slowTurn
	proven  time.Duration // provenAfter
	pause   time.Duration // suspectPause
	began   time.Time
	last    startRecord // of the process before
	careful atomic.Bool
	waits   atomic.Bool // events that were found at the start have not been tried
	through chan struct{}

	mu     sync.Mutex
	record startRecord        // as it stands in the store
	found  map[string]laneTry // lanes with events that were found at the start and have not been tried
	slowed int                // turns that are under way for too long to wait for
}

// laneTry is how far a lane is.
type laneTry struct {
	left   int8 // events that may have been under way when the process before ended: batchSize at most
	headed bool // its head was tried
	single bool // every event by itself
}

func newReplay(as *AppService) *replay {
	return &replay{as: as, slow: slowTurn, proven: provenAfter, pause: suspectPause, began: time.Now(), through: make(chan struct{}), found: map[string]laneTry{}}
}

// isCareful says whether this start replays with care.
func (r *replay) isCareful() bool { return r.last.Bad >= badStarts }

// Careful is nil, once [AppService.Start] has returned, unless the starts before this one did not end well. Then all that
// waited in the store is to be tried with care, one thing at a time and with a mark before: the events by the appservice,
// and whatever else the bridge has after that, when the channel is closed.
func (as *AppService) Careful() <-chan struct{} {
	if !as.replay.isCareful() {
		return nil
	}
	return as.replay.through
}

// load reads what the process before has left.
func (r *replay) load(ctx context.Context) error {
	value, err := r.as.store.Setting(ctx, startsSetting)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if err := json.Unmarshal(value, &r.last); err != nil {
		r.as.log.Warn().Err(err).Msg("What is stored of earlier starts cannot be read, and is forgotten")
		r.last = startRecord{}
	}
	return nil
}

// head says what is known of the first event of a lane that was found at the start, and whether the process before ended
// over it: then that is to be written down.
func (r *replay) head(l store.LaneRefs) (h head, crashed bool) {
	h = head{attempts: l.Attempts, doubt: l.Doubt, nextAt: l.NextAt}
	h.crashes, h.alone = crashes(l.Cause)
	var try laneTry
	// Of a process that was careful, only what it tried was under way.
	crashed = l.Doubt && !r.last.Careful
	for _, t := range r.last.Tried {
		if string(t.Lane) != l.Lane {
			continue
		}
		try.single = true
		if crashed = t.is(l.Refs[0]) || l.Doubt; crashed {
			h.alone++
		} else {
			r.record.Suspects = append(r.record.Suspects, t.Lane)
		}
	}
	for _, lane := range r.last.Suspects {
		if string(lane) == l.Lane && !try.single {
			try.single = true
			r.record.Suspects = append(r.record.Suspects, lane)
		}
	}
	if crashed {
		h.attempts++
		h.crashes++
	}
	r.found[l.Lane] = try
	return h, crashed
}

// knows says whether the lane was found before.
func (r *replay) knows(lane string) bool {
	_, ok := r.found[lane]
	return ok
}

// wait notes events that were found.
func (r *replay) wait(lane string, n int) {
	try := r.found[lane]
	try.left = int8(min(int(try.left)+n, batchSize)) // a turn never was of more
	r.found[lane] = try
}

// suspicious says whether a lane comes before the others.
func (r *replay) suspicious(lane string) bool {
	h := r.as.heads.get(lane)
	return h.doubt || h.crashes > 0 || r.found[lane].single
}

// begin decides how this process goes on, and gives what has to be written before it does.
func (r *replay) begin() Effect {
	r.record.Bad = r.last.Bad + 1
	r.record.Careful = r.isCareful() && len(r.found) > 0
	r.careful.Store(r.record.Careful)
	r.waits.Store(true)
	if len(r.found) == 0 {
		r.pass()
	}
	return r.write
}

// write is for those who hold the lock, or before anything else happens. It does not take it: it runs on the writer's goroutine.
func (r *replay) write(tx *store.Tx) error {
	value, err := json.Marshal(r.record)
	if err != nil {
		return err
	}
	return tx.PutSetting(startsSetting, value)
}

// pass ends the replay: everything that was found has been tried.
func (r *replay) pass() {
	r.waits.Store(false)
	r.found = nil
	close(r.through)
}

// turn is called before a careful turn with a lane and gives those of its events that may be tried now, once the store
// knows of it. end is to be called when what became of them is durable.
func (r *replay) turn(ctx context.Context, lane string, refs []store.Ref) (_ []store.Ref, end func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.careful.Load() {
		return refs, func() {}, nil
	}
	t := triedTurn{Lane: []byte(lane), Seq: refs[0].Seq, Pos: refs[0].Pos}
	if try, ok := r.found[lane]; ok && (try.single || !try.headed) {
		refs, try.headed = refs[:1], true
		r.found[lane] = try
	}
	t.Alone = len(refs) == 1
	before := r.record.Tried
	r.record.Tried = append(before[:len(before):len(before)], t)
	if err := r.as.store.Commit(ctx, r.as.epoch, r.write); err != nil {
		r.record.Tried = before
		return nil, nil, fmt.Errorf("mark what is tried with care: %w", err)
	}
	late := false
	timer := time.AfterFunc(r.slow, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		late = true
		r.slowed++
		r.as.lanes.Limit(1 + r.slowed)
		r.tried(lane, batchSize, true)
	})
	return refs, func() {
		timer.Stop()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.record.Tried = without(r.record.Tried, t)
		if late && r.careful.Load() {
			r.slowed--
			r.as.lanes.Limit(1 + r.slowed)
		}
	}, nil
}

// without gives the others. The record that is in the store follows with the next turn.
func without(list []triedTurn, t triedTurn) (others []triedTurn) {
	for _, other := range list {
		if other.Seq != t.Seq || other.Pos != t.Pos {
			others = append(others, other)
		}
	}
	return others
}

// pausing says how long a lane waits yet because of what its head may have done to processes before this one.
func (r *replay) pausing(h head) time.Duration {
	times := max(h.alone, h.crashes-1)
	if times <= 0 || h.isCulprit() {
		return 0
	}
	return time.Until(r.began.Add(r.pause << (times - 1)))
}

// ended is told what became of every turn: so many events of a lane are over, and perhaps the next has to wait.
func (r *replay) ended(lane string, done int, waits bool) {
	if !r.waits.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tried(lane, done, waits)
}

func (r *replay) tried(lane string, done int, waits bool) {
	try, ok := r.found[lane]
	if !ok {
		return
	}
	if done < int(try.left) && !waits {
		try.left -= int8(done)
		r.found[lane] = try
		return
	}
	delete(r.found, lane)
	if len(r.found) > 0 {
		return
	}
	if r.record.Careful {
		r.record = startRecord{Bad: r.record.Bad}
		if err := r.as.store.Commit(r.as.commitCtx, r.as.epoch, r.write); err != nil {
			r.as.log.Warn().Err(err).Msg("The end of the careful replay cannot be written") // it is harmless: these events are over
		}
		r.careful.Store(false)
		r.as.lanes.Limit(r.as.cfg.Workers)
		r.as.log.Info().Msg("What waited at the start was tried with care, and the bridge goes on as usual")
	}
	r.pass()
}

// prove strikes the start out when the process has shown that it goes well, or ctx ends.
func (r *replay) prove(ctx context.Context) {
	soon, late := time.NewTimer(r.proven), time.NewTimer(provenWithin)
	defer soon.Stop()
	defer late.Stop()
	through := r.through
	for tried, lived := false, false; !tried || !lived; {
		select {
		case <-through:
			tried, through = true, nil
		case <-soon.C:
			lived = true
		case <-late.C:
			if r.careful.Load() {
				continue // one turn after the other takes its time
			}
			tried, lived = true, true
		case <-ctx.Done():
			return
		}
	}
	r.strikeOut(ctx)
}

// strikeOut forgets this start. While it replays with care that only means that it ends no worse than it began.
func (r *replay) strikeOut(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.as.store.Commit(ctx, r.as.epoch, func(tx *store.Tx) error {
		if !r.careful.Load() {
			return tx.PutSetting(startsSetting, nil)
		}
		r.record = startRecord{Bad: r.last.Bad, Suspects: r.record.Suspects}
		return r.write(tx)
	})
	if err != nil && ctx.Err() == nil {
		r.as.log.Warn().Err(err).Msg("That this start went well cannot be written")
	}
}
