package store

import (
	"sync/atomic"
	"time"
)

// tally counts what the writer does. It alone writes; anybody reads.
type tally struct {
	groups, jobs, failed, took atomic.Int64 // took: nanoseconds of their COMMITs
	last                       atomic.Int64 // when the last of them was, unix milliseconds
}

func (t *tally) committed(jobs int, began time.Time) {
	t.groups.Add(1)
	t.jobs.Add(int64(jobs))
	t.took.Add(int64(time.Since(began)))
	t.last.Store(time.Now().UnixMilli())
}

// LastCommit is when something was last committed; zero before that. It is the wall clock's, not Options.Now.
func (s *Store) LastCommit() time.Time { return fromMillis(s.tally.last.Load()) }
