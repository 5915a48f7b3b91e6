// Package crypto is where encryption meets the bridge.
//
// [Crypto] encrypts and decrypts for the devices of the bot and of ghosts, with mautrix's Olm and Megolm. It needs the build
// tag goolm: without it [New] says so in words ([ErrNoOlm]), and everything else here works. [Guard] keeps plaintext out of encrypted rooms:
// it knows which rooms are encrypted, asks the homeserver once about a room it has never seen, and refuses everything but one
// plain sentence, said once per room. [Attachments] opens encrypted files at any offset, for the media proxy.
//
// The flag that a room is encrypted is set by the store in the same commit that takes in the m.room.encryption state
// event, and once set is never taken back: a room cannot be made plain again (Matrix specification, client-server API,
// "m.room.encryption").
//
// # One commit, or nothing
//
// What needs no network is one job of the store's writer: of an Olm message its hash, the session, the account and the room key;
// of a message to be sent the ratchet's step, the ciphertext and what the caller records; of one that came the number that tells
// repetitions. A process that is killed anywhere has done all of it or nothing, and the same message again does it once. mautrix's
// SQL store works inside such jobs by way of [store.Store.Foreign]: a statement that fails fails the job, also where mautrix
// looks away. Memory that was moved by a job that is undone is thrown away and read again, also when the job runs again for
// the sake of others in its group.
//
// What needs the network (a room key is shared, keys are uploaded, devices are asked for) runs outside of jobs, each of its writes a job of its own; but what
// an answer says of users' devices is one job, or one for each 512 rows, with all that is said of some users.
// When one fails nothing more leaves: a ratchet that was moved and not stored must not be used.
//
// # Machines
//
// A machine is one device of the bridge: a user and a device ID. A to-device message goes to the machine that it names and to no
// other. Machines are read from the store when they are needed and forgotten when nobody has used them for five minutes;
// all devices share mautrix's tables, in which the account is "user/device". Keys in the store are encrypted with Options.PickleKey; a
// store that was written with another one is refused at the start ([ErrPickleKey]), and an account that does not belong to its
// device when it is loaded ([ErrForeign]): nothing is written over.
//
// Rooms and members are those of the store: mautrix's machine is told of them as it asks. Who may read a room is who is in it, and
// who is invited, unless its history visibility is "joined" or not known (MSC3061); of the bridge's own users that is one, the bot or the first by name.
//
// # Locks and goroutines
//
// Two locks are taken before a job is given to the writer, in this order: that of a machine's room (one encrypts or shares at a time), and the
// machine's Olm lock (to-device messages, sharing, uploads). Asking for others' devices takes no Olm lock: a server that is
// silent would hold up all keys. Encryption takes the first alone, so that rooms encrypt in parallel and share commits. A job takes no lock that somebody holds while he waits for the writer, and makes no request.
//
// One goroutine unloads machines, one has everybody's devices asked for again every six hours, and one changes the word that the store has in common with
// the homeserver, by which a store that was put back to an older state is known; they end with [Crypto.Close]. Every method may be called from any goroutine.
package crypto
