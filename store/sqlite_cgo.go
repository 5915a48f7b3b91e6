//go:build cgo

package store

import (
	"errors"
	"strconv"

	"github.com/mattn/go-sqlite3" // the driver where there is a C compiler
)

const sqliteDriver = "sqlite3"

// sqliteDSN sets FULL, because the driver compiles in NORMAL.
func sqliteDSN(path string, readOnly bool) string {
	dsn := fileURI(path) + "?_busy_timeout=" + strconv.Itoa(busyFor(readOnly)) + "&_synchronous=FULL&_foreign_keys=on"
	if readOnly {
		return dsn + "&_query_only=true&_cache_size=-" + strconv.Itoa(readerCache)
	}
	return dsn + "&_journal_mode=WAL&_txlock=immediate"
}

func isSQLiteConstraint(err error) bool {
	var refused sqlite3.Error
	return errors.As(err, &refused) && refused.Code == sqlite3.ErrConstraint && refused.ExtendedCode != sqlite3.ErrConstraintTrigger
}
