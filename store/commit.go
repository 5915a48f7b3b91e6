package store

import (
	"context"
	"time"
)

// Commit runs job inside a database transaction and returns nil when what it did is durable. When job returns an error
// (or panics, which becomes an error), what it did is undone and the error is returned.
//
// Jobs run one at a time on the writer's goroutine, in the order in which they came; several share one database
// transaction, and one that fails does not harm the others: their work is undone with it, and they run again without it.
// So a job may run more than once, each time as if it had not run before. It must not wait for anything: no network, no
// Commit of its own, and reads through tx, since the Store's reads do not see what is not yet committed. What it changes
// outside the database belongs into [Tx.AfterCommit].
//
// A job whose ctx is done before it starts is dropped with ctx.Err(); one that has started is waited for. ErrFenced means
// that another process holds the store; ErrClosed that Close was called.
func (s *Store) Commit(ctx context.Context, epoch Epoch, job func(tx *Tx) error) error {
	return s.commit(ctx, s.jobs, epoch, job)
}

const (
	// gatherFor is how long jobs of [Store.CommitSoon] gather before they run: what is done for many events at once costs
	// less for each.
	gatherFor = 5 * time.Millisecond
	// lingerFor is how long they then wait for a job of [Store.Commit], to become durable with it.
	lingerFor = 2 * time.Millisecond
)

// CommitSoon is [Store.Commit] for a job that nobody is in a hurry for: it waits a few milliseconds for others of its
// kind, runs when the writer has nothing to do for Commit or has just committed, and becomes durable with the next job of Commit or, if none
// comes, a little later. So who is in a hurry waits for no commit but his own. Many short jobs are better than a long one,
// because between them the writer turns to Commit.
func (s *Store) CommitSoon(ctx context.Context, epoch Epoch, job func(tx *Tx) error) error {
	return s.commit(ctx, s.soon, epoch, job)
}

func (s *Store) commit(ctx context.Context, to chan<- *request, epoch Epoch, job func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{ctx: ctx, epoch: epoch, job: job, done: make(chan error, 1)}
	select {
	case to <- r:
		return <-r.done
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
}

type request struct {
	ctx   context.Context
	epoch Epoch
	job   func(tx *Tx) error
	done  chan error // holds one
}
