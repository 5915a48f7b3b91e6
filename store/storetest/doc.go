// Package storetest is the conformance suite of the store, and what tests of other packages need to have a store.
//
// [New] gives a SQLite store that is gone after the test. [Postgres] gives the URI of a fresh PostgreSQL database, from
// the server that TRESTLE_TEST_POSTGRES names or from a private one that it starts from the installed binaries. [Run] runs
// the whole suite on an engine:
//
//	func TestStore_SQLite(t *testing.T) { storetest.Run(t, storetest.SQLite) }
//
// The only goroutine besides the store's own waits for the private server; it ends with the test.
package storetest
