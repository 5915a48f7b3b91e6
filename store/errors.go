package store

import (
	"errors"

	"github.com/lib/pq"
)

// What a caller decides on. Test with errors.Is.
var (
	// ErrFenced: another process has taken the store over since the epoch was taken. The process must stop.
	ErrFenced = errors.New("another process has taken over the store")
	// ErrInUse: another process has the SQLite database open.
	ErrInUse = errors.New("the database is in use by another process")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrTaken: what must be unique is there already.
	ErrTaken = errors.New("taken")
	// ErrUnknownOutcome: the connection was lost during COMMIT and the outcome could not be learnt, because the server has
	// forgotten it or the store was closed before it answered. The store takes no further commits; the process must start again, which reads from the database what holds.
	ErrUnknownOutcome = errors.New("the outcome of a commit is unknown")
)

// IsData says of an error of the database that it does not take a value, however often that is tried: a text with NUL in it, a number too large for its
// column, a value too long for an index. PostgreSQL has such limits (error classes 22 and 54), SQLite has none.
func IsData(err error) bool {
	var refused *pq.Error
	return errors.As(err, &refused) && (refused.Code.Class() == "22" || refused.Code.Class() == "54")
}

// IsConstraint says of an error of the database that a row may not be, however often that is tried: one with its key is there already, or a column has a value that
// is not allowed (PostgreSQL's error class 23, SQLite's SQLITE_CONSTRAINT). What a trigger refuses is none.
func IsConstraint(err error) bool {
	var refused *pq.Error
	return errors.As(err, &refused) && refused.Code.Class() == "23" || isSQLiteConstraint(err)
}
