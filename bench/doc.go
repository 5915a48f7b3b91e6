// Command bench measures the intake: bench/sink, which commits every event before it acknowledges it and handles each in
// order, beside mautrix-go's appservice (bench/peer), which keeps nothing, and beside a bare fdatasync of the same bytes,
// which is what the disk allows.
//
//	go run ./bench            (or make bench)
//	go run ./bench -rounds 5 -seconds 4 -only sqlite,peer-async
//
// Everything is measured in interleaved rounds, each target with a process and a database of its own, over one
// connection with one transaction under way, as a homeserver has it. Figures are medians of the rounds. Absolute figures
// do not travel from one machine to another: ratios of the same run do.
//
// What syncs is measured once more where every sync takes longer (-sync), by default so much that the disk is as fast
// as the one for which the goals were set: with a faster one the processor is the limit, and the shares of the disk say
// nothing about its use.
//
// Then the media proxy is measured beside nginx (bench/media; -only proxy), with every byte of every answer compared, and
// encryption beside mautrix-go's machine and store (bench/sealing; -only sealing), with the messages counted from the stores.
//
// After each run of a target the events that were handled are counted, in the sink from its store. A count that is wrong
// ends the program with status 1. Slowness never does: the goals stand beside the figures as reached or not reached.
//
// Data lies in a temporary folder under ./bench-data, because the default temporary folder may be in memory.
// PostgreSQL is measured when TRESTLE_TEST_POSTGRES names a server, or when a private one can be started from installed
// binaries.
package main
