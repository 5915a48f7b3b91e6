//go:build cgo

package bridge

// sqliteDriver is what package store uses in this build.
const sqliteDriver = "mattn/go-sqlite3 (C)"
