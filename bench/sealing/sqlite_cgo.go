//go:build goolm && cgo

package main

import _ "github.com/mattn/go-sqlite3" // as the store has it

// durable is a SQLite file whose commits are on disk when they return, as those of the store are.
func durable(path string) (driver, dsn string) {
	return "sqlite3", "file:" + path + "?_journal_mode=WAL&_synchronous=FULL&_foreign_keys=on&_busy_timeout=10000&_txlock=immediate"
}
