package crypto

import (
	"encoding/json"
	"errors"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// What a caller decides on. Test with errors.Is. All but ErrNoKey, ErrNoOlm and ErrPickleKey are about one message, which no
// repetition mends.
var (
	// ErrNoOlm: this program was built without encryption.
	ErrNoOlm = errors.New("this program was built without encryption: build it with -tags goolm")
	// ErrNoKey: the key of a message has not come, or was given from a later message on.
	ErrNoKey = errors.New("the key of the message is not here")
	// ErrUntrusted: the device that sent a message has less trust than is asked for.
	ErrUntrusted = errors.New("the sending device is not trusted enough")
	// ErrReplayed: a message with this number in its session was taken in before, with another event ID or time.
	ErrReplayed = errors.New("the message is a repetition of another one")
	// ErrCorrupt: what was encrypted was changed on the way, or is not what it says that it is.
	ErrCorrupt = errors.New("the message was altered, or is not one")
	// ErrNotForMe: a message was encrypted for another device.
	ErrNotForMe = errors.New("the message was not encrypted for this device")
	// ErrMismatch: what a message says of its sender's device and what is known of the device differ.
	ErrMismatch = errors.New("the message does not come from the device that it names")
	// ErrNoMachine: the bridge has no keys of a device of its own that somebody names.
	ErrNoMachine = errors.New("the bridge has no keys of this device")
	// ErrPickleKey: the keys in the store were written with another key than the one that is configured.
	ErrPickleKey = errors.New("the keys in the store cannot be opened: the pickle key is another one than when they were written")
	// ErrForeign: the keys in the store belong to another account, or to another state of it.
	ErrForeign = errors.New("the keys in the store are not those of this device")
)

// Trust is the least that is asked of a device.
type Trust int

const (
	// TrustAny takes every device that its user has.
	TrustAny Trust = iota
	// TrustCrossSigned takes devices that their user has signed (MSC4153), as clients do since 2026. It is the default of a configuration.
	TrustCrossSigned
	// TrustVerified takes signed devices of users whom the bridge's own user has verified: nobody, unless somebody does that with its keys.
	TrustVerified
)

// Options of [New].
type Options struct {
	Store *store.Store
	AS    *appservice.AppService
	Log   zerolog.Logger
	// PickleKey is what keys are encrypted with in the store.
	PickleKey []byte
	// Send says who is given the keys of what the bridge sends, Receive whose messages are read.
	Send, Receive Trust
	// Sync says whether devices ask for their keys with /sync; it is found out when empty.
	Sync SyncMode

	probing *probing // nil: usualProbing
}

// Sealing is an event to be encrypted.
type Sealing struct {
	Room id.RoomID
	// Machine is the user whose device encrypts.
	Machine id.UserID
	Type    string
	Content json.RawMessage
	// Record, which may be nil, writes the encrypted content in the commit that also holds the ratchet's step. It may run
	// more than once, as jobs of [store.Store.Commit] do.
	Record func(tx *store.Tx, sealed json.RawMessage) error `json:"-"`
}
