// Package load drives an appservice as a homeserver does: transactions of room events over one connection, one at a
// time, each sent until it is acknowledged.
//
// Requests are built once and patched in place (event IDs, counters, times), so that the generator takes as little as
// possible of the machine that it shares with what it measures. Every event has an ID of its own, and content.n counts
// the events of its room, so that whoever handles them can tell loss, doubling and disorder.
//
// The package starts no goroutines. A [Conn] and a [Generator] belong to one goroutine.
package load
