package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

const (
	// checkpointAfter is how much the WAL may hold before it is written back. Then it is used again from its start:
	// overwriting blocks that are there costs less than growing or cutting the file.
	checkpointAfter = 24 << 20
	// pagesPerGroup is about what a commit writes besides its data.
	pagesPerGroup = 8 * pageSize
	// maxWAL is the size above which the WAL is cut when it starts over.
	maxWAL = 64 << 20
	// checkpointIdle: what waits in the WAL of a quiet store is written back after so long.
	checkpointIdle = time.Minute
)

// checkpoints writes the WAL back while the writer goes on. It cannot reach the end of a WAL that grows meanwhile: the
// writer does the little that is left between two commits, and only then does the WAL start over.
func (e *sqliteEngine) checkpoints() {
	tick := time.NewTicker(checkpointIdle)
	defer tick.Stop()
	for {
		select {
		case <-e.wake:
		case <-tick.C:
		case <-e.stop:
			return
		}
		conn, err := e.write.Conn(context.Background())
		if err == nil {
			_, err = checkpoint(conn)
			_ = conn.Close()
		}
		if err != nil {
			e.log.Warn().Err(err).Msg("Writing back the WAL failed; it is tried again")
		}
		e.finish.Store(true)
	}
}

// checkpoint moves what it can without waiting for anybody, and gives the number of pages that are left.
func checkpoint(conn *sql.Conn) (left int, err error) {
	var busy, pages, moved int
	err = conn.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &moved)
	return pages - moved, err
}

// checkpointAll empties the WAL at the end, so that the database file alone is everything. SQLite does so by itself only
// when no other connection to the file is open, and not with every driver's way to close.
func (e *sqliteEngine) checkpointAll() {
	var busy, pages, moved int
	err := e.write.QueryRowContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	if err == nil && busy != 0 {
		err = errors.New("somebody else has the database open; keep the -wal file beside it")
	}
	if err != nil {
		e.log.Warn().Err(err).Msg("The WAL was not written back at the end")
	}
}

func (e *sqliteEngine) settle(w *writer, bytes int) {
	e.walBytes += bytes + pagesPerGroup
	if e.finish.Swap(false) && w.conn != nil {
		left, err := checkpoint(w.conn)
		if err != nil {
			e.log.Warn().Err(err).Msg("Writing back the end of the WAL failed; it is tried again")
		} else {
			e.walBytes = left * pageSize
		}
	} else if e.walBytes > checkpointAfter {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}
