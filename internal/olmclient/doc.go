// Package olmclient is a Matrix user with keys of its own, for tests: a device with mautrix's Olm machine over /sync, against bridgetest's
// homeserver or a real one. It is as strict as clients are today that leave unverified devices out (MSC4153): it is cross-signed
// before its first Olm message, gives room keys only to devices whose owners have cross-signed them, and accepts no words of others:
// those are recorded with [ErrUntrusted].
//
//	alice := olmclient.Start(t, olmclient.Options{URL: hs.URL(), User: "@alice:hs.test", Password: "alice"})
//	room := alice.CreateRoom("secret", bot)
//	alice.Say(room, "hello")
//	alice.WaitFor("the answer", olmclient.Text(room, "hello yourself"))
//	alice.Clean(room) // fails the test when something could not be read, was not to be trusted, or came in the clear
//
// What came before the device or its joining is history, which it has no keys for, and is not recorded. Keys are kept in memory.
//
// Goroutines: one for each [Client], which reads /sync and owns what was recorded, until [Client.Logout] or the test's end.
//
// Everything but this text needs the build tag goolm.
package olmclient
