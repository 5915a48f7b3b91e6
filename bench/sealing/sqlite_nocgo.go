//go:build goolm && !cgo

package main

import _ "modernc.org/sqlite" // as the store has it

// durable is a SQLite file whose commits are on disk when they return, as those of the store are.
func durable(path string) (driver, dsn string) {
	return "sqlite", "file:" + path + "?_time_format=sqlite&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=busy_timeout(10000)&_txlock=immediate"
}
