package crypto

import "errors"

var (
	// ErrOtherIdentity says that the homeserver has cross-signing keys of the user that this bridge has not made, or has lost. They are never
	// replaced silently: people may have verified them.
	ErrOtherIdentity = errors.New("the homeserver has cross-signing keys that are not those of this bridge; " +
		"the command reset-cross-signing -yes replaces them, of a ghost with -user, and whoever has verified the user must do so again")
	// ErrRecoveryKey says that a user's recovery key was made and shown before. It is not kept.
	ErrRecoveryKey = errors.New("a recovery key was made and shown before, and is not kept; " +
		"reset-cross-signing -yes, of a ghost with -user, makes new cross-signing keys, and with them another")
	// ErrOtherSecrets says that somebody else has set up secret storage for the user.
	ErrOtherSecrets = errors.New("the user has secret storage on the homeserver that this bridge has not made; " +
		"the command reset-cross-signing lets it be replaced")
	// ErrApproval says that the homeserver wants somebody to approve the upload of cross-signing keys, which it should not ask of an appservice
	// that manages devices (MSC4190).
	ErrApproval = errors.New("the homeserver wants somebody to approve new cross-signing keys: " +
		"set io.element.msc4190: true in the registration, or use the command reset-cross-signing and open the address that it shows")
)
