package store

import (
	"context"
	"errors"
	"time"
)

const (
	pruneEvery = time.Hour
	// pruneFirst is how long after the start the first time is: what an earlier process left waiting goes before.
	pruneFirst = time.Minute
	// pruneBatch is what one commit deletes: lanes must not wait for a large deletion.
	pruneBatch = 1000
	// keepAnswers is how long the answer to a request for a dead letter can be read.
	keepAnswers = day
)

// Prune deletes what is older than Options.Retention says, and keys that are of no more use. The store does it by itself a minute after the start
// and every hour, the keys every day.
func (s *Store) Prune(ctx context.Context) error {
	if err := s.pruneOld(ctx); err != nil {
		return err
	}
	return s.pruneKeys(ctx)
}

func (s *Store) pruneOld(ctx context.Context) error {
	now, keep := s.opts.Now(), s.opts.Retention
	for _, p := range []struct {
		what, query string
		before      time.Time
	}{
		{"dead letters", `DELETE FROM dead_letter WHERE id IN (SELECT id FROM dead_letter WHERE created < $1 LIMIT $2)`, now.Add(-keep.DeadLetters)},
		{"messages", `DELETE FROM message WHERE (channel, remote_id, part) IN
			(SELECT channel, remote_id, part FROM message WHERE happened < $1 LIMIT $2)`, now.Add(-keep.Messages)},
		{"remote keys", `DELETE FROM seen_remote WHERE hash IN (SELECT hash FROM seen_remote WHERE added < $1 LIMIT $2)`, now.Add(-keep.Remote)},
		{"pages of links that ended", `DELETE FROM media_page WHERE record IN
			(SELECT p.record FROM media_page p JOIN media m ON m.id = p.record WHERE m.expires < $1 AND m.expires > 0 LIMIT $2)`, now},
		{"pages of revoked links", `DELETE FROM media_page WHERE record IN
			(SELECT p.record FROM media_page p JOIN media m ON m.id = p.record WHERE m.revoked < $1 AND m.revoked > 0 LIMIT $2)`, now.Add(-keep.Media)},
		{"media records", `DELETE FROM media WHERE id IN (SELECT id FROM media WHERE expires < $1 AND expires > 0 LIMIT $2)`, now.Add(-keep.Media)},
		{"notes of how long events have waited for their keys", `DELETE FROM unparked WHERE event IN (SELECT event FROM unparked WHERE expires < $1 LIMIT $2)`, now},
		{"requests", `DELETE FROM letter_request WHERE letter IN
			(SELECT letter FROM letter_request WHERE answered > 0 AND answered < $1 LIMIT $2)`, now.Add(-keepAnswers)},
	} {
		for n := int64(pruneBatch); n == pruneBatch; {
			err := s.Commit(ctx, s.epoch, func(tx *Tx) (err error) {
				n, err = tx.exec(p.query, toMillis(p.before), pruneBatch)
				return err
			})
			if err != nil {
				return doing(err, "deleting old %s", p.what)
			}
		}
	}
	return nil
}

func (s *Store) pruneHourly() {
	due := time.NewTimer(pruneFirst)
	defer due.Stop()
	for n := time.Duration(0); ; n++ {
		select {
		case <-due.C:
		case <-s.closing:
			return
		}
		due.Reset(pruneEvery)
		prune := s.pruneOld
		if n%(pruneKeysEvery/pruneEvery) == 0 {
			prune = s.Prune
		}
		if err := prune(context.Background()); err != nil && !errors.Is(err, ErrClosed) {
			s.opts.Log.Warn().Err(err).Msg("Retention was not enforced; it is tried again in an hour")
		}
	}
}
