// Package e2e runs the IRC bridge, as the program that users run, between a real Synapse and real IRC servers, and looks
// at every line from the other side.
//
// The servers come from Debian's packages and are installed by install.sh in this directory. Each test starts its own,
// on free ports of 127.0.0.1 with data that goes away with the test, and ends them by their process IDs. A server that is
// not installed fails the test that needs it: nothing here is ever skipped.
//
//	func TestSomething(t *testing.T) {
//		synapse := e2e.StartSynapse(t, e2e.SynapseOptions{})
//		alice := synapse.User("alice")
//		room := alice.CreateRoom("a room")
//		ircd := e2e.StartInspIRCd(t)
//		bob := ircd.User("bob")
//		…
//	}
//
// TestKills_… is the soak of bench/soak between these servers; KILLS and SOAK_SEED are its.
//
// [Synapse.Strict] gives a user with keys. SECRET_LINES is how many lines go each way through an encrypted room (500), PREPARED_SPEAKERS
// how many of 500 ghosts with keys speak at once (120; up to 500, which are a quarter of an hour).
//
// Goroutines: a [Process] has one that waits for its end; a [MatrixUser] has one that syncs; an [IRCUser] has one that
// reads. Each ends with the test.
//
// It is a Go module of its own, so that what only these tests need never becomes a dependency of a bridge. It runs on
// Linux, as root, because Synapse is run in a changed root.
package e2e
