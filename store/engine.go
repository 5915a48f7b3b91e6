package store

import (
	"context"
	"database/sql"
)

// engine is what differs between SQLite and PostgreSQL. Its methods that take the writer run on the writer's goroutine.
type engine interface {
	// placeholders turns the $1 that queries are written with into the engine's own.
	placeholders(query string) string
	// connect opens the writing connection and checks that what it commits is durable.
	connect(ctx context.Context) (*sql.Conn, error)
	// takeEpoch raises the epoch: from its return on no older process commits.
	takeEpoch(ctx context.Context, conn *sql.Conn) (Epoch, error)
	// begin starts the group's transaction and reads the epoch inside it, so that the epoch holds until it ends.
	begin(w *writer) (Epoch, error)
	// commit is the statement that ends the group's transaction, and fails when that did not commit it.
	commit() string
	// insert writes a row of the inbox, unless nothing of it is left, and what is seen with it, in the place of number
	// row.seq. It is not free when another process has taken in since this one did last: then nothing is written.
	insert(tx *Tx, row *newRow) (free bool, err error)
	// missed gives what others took in after the row numbered after.
	missed(tx *Tx, after int64) ([]seenRow, error)
	// outboxIDs gives IDs for rows of the outbox, ascending, that nobody else will use. enqueue writes rows that have one.
	outboxIDs(tx *Tx, n int) ([]int64, error)
	enqueue(tx *Tx, rows []*Outgoing) error
	// resolve tells whether a group is in the database although its COMMIT failed. It may wait for the database until ctx ends.
	resolve(ctx context.Context, cause error) (committed bool, err error)
	// settle runs after each group, when its callers have their answers; bytes is about what was written.
	settle(w *writer, bytes int)
	reader() *sql.DB
	// dialect is what dbutil calls the engine, and foreignArgs makes the arguments of others' statements what the connections take.
	dialect() string
	foreignArgs(args []any) []any
	close() error
}
