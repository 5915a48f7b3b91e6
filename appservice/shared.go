package appservice

import (
	"sync"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// maxShared is how many lanes may wait for their commit while their workers are at others. It bounds the memory that they
// hold, and what is handled again after a crash.
const maxShared = 1024

// sharedJob is how many lanes one job of the writer is for: a short time, which an intake may have to wait for it.
const sharedJob = 16

// sharedCommits writes the progress of many lanes at once. Workers do not wait for it: they hand their turn over and take
// the next lane, so that what a commit takes does not bound how many lanes go on, and each event of 50,000 rooms costs
// hardly more than one of 50.
type sharedCommits struct {
	as *AppService

	mu      sync.Mutex
	room    *sync.Cond // for one more
	waiting []*batch
	pending int  // waiting, or being committed
	running bool // a goroutine commits; it ends when nothing waits
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
	switch {
	case len(s.waiting) == sharedJob:
		go s.commit(s.take())
	case !s.running:
		s.running = true
		go s.run()
	}
}

func (s *sharedCommits) take() []*batch {
	list := s.waiting
	s.waiting = nil
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
	for _, b := range list {
		if err == nil {
			b.done()
			done, retryAfter := b.over(b.committed, 0)
			s.end(b, done, retryAfter)
			continue
		}
		// Whoever is the cause must not harm the others: each by itself, with all the care that it takes.
		go func() {
			done, retryAfter := b.end()
			s.end(b, done, retryAfter)
		}()
	}
}

func (s *sharedCommits) end(b *batch, done int, retryAfter time.Duration) {
	s.mu.Lock()
	s.pending--
	s.room.Signal()
	s.mu.Unlock()
	s.as.lanes.Finish(b.lane, done, retryAfter)
}
