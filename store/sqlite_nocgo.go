//go:build !cgo

package store

import (
	"errors"
	"strconv"

	"modernc.org/sqlite" // the driver where there is no C compiler
)

const sqliteDriver = "sqlite"

// sqliteDSN asks for times in SQLite's own format: what this driver writes otherwise, the other one reads as the year 1.
// Our tables hold no such times; mautrix's, which share the file, do.
func sqliteDSN(path string, readOnly bool) string {
	dsn := fileURI(path) + "?_time_format=sqlite&_pragma=busy_timeout(" + strconv.Itoa(busyFor(readOnly)) +
		")&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"
	if readOnly {
		return dsn + "&_pragma=query_only(1)&_pragma=cache_size(-" + strconv.Itoa(readerCache) + ")"
	}
	return dsn + "&_pragma=journal_mode(WAL)&_txlock=immediate"
}

func isSQLiteConstraint(err error) bool {
	const constraint, trigger = 19, 1811 // the low byte says that it is one
	var refused *sqlite.Error
	return errors.As(err, &refused) && refused.Code()&0xff == constraint && refused.Code() != trigger
}
