// Package bridgetest is a Matrix homeserver inside the process, for testing a bridge whole with `go test` and for
// demonstrations. It behaves as Synapse 1.160 does towards clients and appservices, down to the status and error codes
// that a bridge meets in the field, or as another [Personality]; everything is kept in memory.
//
//	func TestGreeting(t *testing.T) {
//		hs := bridgetest.NewHomeserver(t)
//		if err := hs.AddAppService("registration.yaml"); err != nil {
//			t.Fatal(err)
//		}
//		alice := hs.User("alice")
//		room, err := alice.CreateRoom(t.Context(), bridgetest.RoomOptions{Preset: "public_chat"})
//		...
//		_, err = alice.SendText(t.Context(), room, "hello")
//		...
//		reply, err := alice.WaitFor(t.Context(), room, bridgetest.Text("hello, alice"))
//	}
//
// NewHomeserver(t, bridgetest.Dendrite) is another server, with a [Clock] one whose time the test turns. Things go wrong on
// demand: [Fault] for requests of the bridge, [PushFault] and [Homeserver.Poison] for what it is sent, [Homeserver.Restart],
// [Homeserver.Moderate] for its ghosts, [Limits] for how much they may do. docs/testing.md has the whole of it.
//
// [NewHomeserver] closes itself at the end of the test. [StartHomeserver] needs no test. A [User] is a person with a
// client: its methods speak the client-server API over HTTP, as any other client would, and [User.WaitFor] reads /sync.
//
// # Who owns what
//
// One mutex guards all data of a [Homeserver]; no request to an appservice is made while it is held. Goroutines: one
// that accepts connections, those of net/http for each connection, and one for each appservice, which makes and sends
// its transactions. Homeserver.Close ends all of them. A User has no goroutine: /sync is read by whoever waits.
//
// # What it leaves out
//
// Federation, state resolution, guests, spaces, search, push rules, room upgrades, user-interactive authentication
// beyond its refusal, and the authentication service of OAuth. Room versions are 11 and 12.
package bridgetest
