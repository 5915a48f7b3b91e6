// Package soak runs the IRC bridge, as it is shipped but for its failpoints, between a homeserver and an IRC
// server, and ends it with kill -9 again and again: at named steps of an event's journey (internal/failpoint) and at any time.
// What was sent, what arrived and what is in the store must agree in the end, also where the homeserver forgot to send something. [Run] is given the servers: the tests of this package
// have bridgetest's homeserver and the test IRC server, and module e2e has real ones. In a tenth of the kills the rooms are encrypted, and
// one of the people decrypts as strictly as clients do: whatever could not be read, or came in the clear, is wrong.
//
//	SOAK_KILLS=1000 go test -tags goolm -count=1 -timeout 3h -v ./bench/soak
//
// SOAK_SEED repeats the choices of an earlier run, whose seed a failure prints; it does not repeat how the machine scheduled
// them. docs/reliability.md says what is checked.
package soak
