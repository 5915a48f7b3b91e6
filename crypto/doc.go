// Package crypto is where encryption meets the bridge.
//
// Today it does three things. [Guard] keeps plaintext out of encrypted rooms: it knows which rooms are encrypted, asks the
// homeserver once about a room it has never seen, and refuses everything but one plain sentence, said once per room, that
// tells people why the bridge is silent. [PrepareBot] gives the bridge's bot the device that it will decrypt with. [Attachments] opens encrypted files at any
// offset, for the media proxy.
//
// The flag that a room is encrypted is set by the store in the same commit that takes in the m.room.encryption state
// event, and once set is never taken back: a room cannot be made plain again (Matrix specification, client-server API,
// "m.room.encryption").
//
// Nothing here has a goroutine of its own; every method may be called from any.
package crypto
