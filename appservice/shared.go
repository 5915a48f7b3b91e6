package appservice

import (
	"sync"

	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

// maxShared is how many lanes may wait for their commit while their workers are at others. It bounds the memory that they
// hold, and what is handled again after a crash.
const maxShared = 1024

// sharedJob is how many events one job of the writer is for: a short time, which an intake may have to wait for it.
const sharedJob = 64

// sharedSteps is for how many events of a turn room is kept for the turns to come.
const sharedSteps = 4

// sharedCommits writes the progress of many lanes at once. Workers do not wait for it: they hand their turn over and take
// the next lane, so that what a commit takes does not bound how many lanes go on, and each event of 50,000 rooms costs
// hardly more than one of 50.
type sharedCommits struct {
	as *AppService

	mu      sync.Mutex
	room    *sync.Cond // for one more
	waiting []*batch
	events  int  // of those that wait
	pending int  // waiting, or being committed
	running bool // a goroutine commits; it ends when nothing waits

	spare sync.Pool // of turns that are over
}

func newSharedCommits(as *AppService) *sharedCommits {
	s := &sharedCommits{as: as}
	s.room = sync.NewCond(&s.mu)
	return s
}

// add takes a turn over whose handlers have all ended well. While too many wait already it waits as well.
func (s *sharedCommits) add(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending >= maxShared {
		s.room.Wait()
	}
	s.pending++
	s.waiting = append(s.waiting, b)
	s.events += len(b.steps)
	switch {
	case s.events >= sharedJob:
		go s.commit(s.take())
	case !s.running:
		s.running = true
		go s.run()
	}
}

func (s *sharedCommits) take() []*batch {
	list := s.waiting
	s.waiting, s.events = nil, 0
	return list
}

// run commits those that do not fill a job: one after the other, so that the next is fuller.
func (s *sharedCommits) run() {
	for {
		s.mu.Lock()
		list := s.take()
		s.running = len(list) > 0
		s.mu.Unlock()
		if len(list) == 0 {
			return
		}
		s.commit(list)
	}
}

func (s *sharedCommits) commit(list []*batch) {
	as := s.as
	err := as.store.CommitSoon(as.commitCtx, as.epoch, func(tx *store.Tx) error {
		for _, b := range list {
			if bad := b.apply(tx, nil); bad != nil {
				return bad
			}
		}
		return nil
	})
	if err != nil {
		// Whoever is the cause must not harm the others: each by itself, with all the care that it takes.
		for _, b := range list {
			go func() {
				done, retryAfter := b.end()
				s.end(lanes.Outcome{Lane: b.lane, Done: done, RetryAfter: retryAfter})
			}()
		}
		return
	}
	outcomes := make([]lanes.Outcome, len(list))
	for i, b := range list {
		b.done()
		done, retryAfter := b.over(b.committed, 0)
		outcomes[i] = lanes.Outcome{Lane: b.lane, Done: done, RetryAfter: retryAfter}
		if cap(b.steps) <= sharedSteps {
			*b = batch{steps: b.steps}
			s.spare.Put(b)
		}
	}
	s.end(outcomes...)
}

func (s *sharedCommits) end(outcomes ...lanes.Outcome) {
	s.mu.Lock()
	if s.pending >= maxShared {
		s.room.Broadcast()
	}
	s.pending -= len(outcomes)
	s.mu.Unlock()
	s.as.lanes.Finish(outcomes...)
}

// fresh gives a turn to be filled.
func (s *sharedCommits) fresh() *batch {
	if b, ok := s.spare.Get().(*batch); ok {
		return b
	}
	return new(batch)
}
