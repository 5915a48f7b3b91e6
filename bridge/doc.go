// Package bridge is what a bridge to another network is built on: its author writes a [Network] and a [Session], and [Main]
// makes a program of them.
//
// A portal is a Matrix room and the remote channel that it is plumbed to. People of the network appear in the room as
// ghosts, each with a device of its own; people of Matrix are spoken for on the network by the Session of the relay login.
//
// Matrix → network: the room's lane (package appservice) hands event after event to HandleEvent (to_network.go), which marks
// a message as in doubt, calls Session.Send, and returns the effects that are committed with the event's progress.
//
// Network → Matrix: Sink.Deliver (to_matrix.go) writes outbox rows and returns when they are durable. The room's lane of
// the outbox (outbox.go) carries them out one after another; a row leaves the store in the commit that records what it
// became.
//
// # Goroutines
//
// The bridge owns up to 16 outbox workers, which exist while there is work; one goroutine that sends typing notices; one that
// carries out what an operator asks for about dead letters; at start, one that tries again what ended the process, and one for
// each portal until its channel is entered; and one for each notice on the network that a message did not reach Matrix.
// HandleEvent runs on the appservice's workers, Deliver on the Session's goroutine. All of them have ended when [Bridge.Run]
// returns.
//
// # Example
//
// The smallest whole bridge is docs/embed/main.go; its test beside it runs it against a homeserver in process.
package bridge
