// Command crossing measures whole journeys through a bridge, between a homeserver of bridgetest and a network that does nothing
// but take the time, beside what the disk or the homeserver alone would take in the same run:
//
//	go run -tags goolm ./bench/crossing
//
// It prints a table of figures beside their goals, and never ends with a failure because of one. docs/benchmarks.md has the
// figures of one machine.
package main
