// Package ircd is an IRC server in process, for tests and for the demo: RFC 1459 and 2812 without server links and
// operators, with the IRCv3 capabilities of [Capabilities], over TCP and TLS. People can join it with their usual clients.
//
// It is faithful where bridges get hurt: lines over the limit are cut, floods close the link, nicks collide, channels
// refuse, and a test can cut a link, hold a client's lines, or inject a line of its own.
//
// # Goroutines
//
// One accepts for each listener. One reads for each client and runs its commands, under the server's lock. One writes for a
// client while something is waiting to be written; nothing that holds the lock ever waits for a client. [Server.Close] ends
// them all.
//
//	server, err := ircd.Start(ircd.Options{})
//	if err != nil {
//		return err
//	}
//	defer server.Close()
//	fmt.Println("join with: irc://" + server.Addr())
package ircd
