package proxy

import (
	"errors"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Errors that a caller decides on.
var (
	// ErrEncrypted says that a link was asked for encrypted media where there is no Decrypter, or without a record, in which alone the keys may be.
	// Rather than a link that opens to noise there is none.
	ErrEncrypted = errors.New("media is encrypted, and is not decrypted here")

	// ErrBadMedia says that the media's address is none: a server name or a media ID outside the grammar of the Matrix specification; or that the
	// keys of encrypted media are none.
	ErrBadMedia = errors.New("not media that can be linked to")

	// ErrRedacted says that a link was asked for the media of a message that was deleted.
	ErrRedacted = errors.New("the message was deleted, and its media gets no link")

	// ErrNoKey says that the key ring has no key that may sign.
	ErrNoKey = errors.New("no signing key for media links")

	// ErrStaticKeys says that keys given in the configuration cannot be rotated or retired by the program.
	ErrStaticKeys = errors.New("the keys for media links come from the configuration and are changed there")
)

// Media is what a link leads to: the media of one Matrix event.
type Media struct {
	URI  id.ContentURI // mxc://server/mediaID
	Name string        // the file's name as its sender gave it; any text, cleaned before use
	MIME string        // the type as its sender gave it; "" leaves it to the homeserver's answer. Never trusted by itself
	Size int64         // bytes, as the sender gave it; 0 when unknown. Never trusted

	Room  id.RoomID  // the room of the event
	Event id.EventID // the event: revoking it makes the link answer 410

	// Edit is the event that brought the media by editing Event; "": Event did. The redaction of either ends a short link.
	Edit id.EventID

	Sender id.UserID // of the event; "": not known. Only for listing and revoking short links by it

	// Expires is when the link ends. Zero takes the signer's lifetime.
	Expires time.Time

	// Encrypted is the `file` of an encrypted event; nil for media that is not encrypted.
	Encrypted *event.EncryptedFileInfo

	// Thumbnail is the `info.thumbnail_file` of an encrypted event, and ThumbnailMIME the type that its sender gave: small sizes show it, and without one
	// the file itself, because no homeserver can make a thumbnail of what is encrypted.
	Thumbnail     *event.EncryptedFileInfo
	ThumbnailMIME string

	Width, Height int // pixels, as the sender gave them; 0 when unknown. Only pages say them
}
