package appservice

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/trestle-bridge/trestle/internal/soundjson"
)

// envelope is what an element must say about itself, each value as it stands in the JSON.
type envelope struct {
	eventID, roomID, typ, sender, stateKey, toUser, toDevice jsontext.Value
}

// field gives the place of a name's value, or nil for names that do not matter here.
func (e *envelope) field(name []byte) *jsontext.Value {
	switch string(name) {
	case `"event_id"`:
		return &e.eventID
	case `"room_id"`:
		return &e.roomID
	case `"type"`:
		return &e.typ
	case `"sender"`:
		return &e.sender
	case `"state_key"`:
		return &e.stateKey
	case `"to_user_id"`:
		return &e.toUser
	case `"to_device_id"`:
		return &e.toDevice
	}
	if bytes.IndexByte(name, '\\') >= 0 { // a name may be written with escapes
		if plain := unquote(name); strings.IndexByte(plain, '\\') < 0 && strings.IndexByte(plain, '"') < 0 {
			return e.field([]byte(`"` + plain + `"`))
		}
	}
	return nil
}

// read finds the fields of an object that a JSON reader has found sound: the intake reads every element as a whole first.
func (e *envelope) read(object []byte) {
	for name, value := range soundjson.Members(object) {
		if into := e.field(name); into != nil {
			*into = value
		}
	}
}
