package appservice

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
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

// read finds the fields of an object that a JSON reader has found sound: the intake reads every element as a whole
// first. So it looks at quotes and brackets only, at a fraction of what reading it again would cost. What is not sound
// after all leaves fields empty and does no other harm.
func (e *envelope) read(object []byte) {
	i := skipSpace(object, 1)
	for i < len(object) && object[i] == '"' {
		name := object[i:textEnd(object, i)]
		i = skipSpace(object, i+len(name)) // before the colon
		i = skipSpace(object, i+1)
		end := valueEnd(object, i)
		if into := e.field(name); into != nil && i < end {
			*into = object[i:end:end]
		}
		i = skipSpace(object, end) // before the comma
		i = skipSpace(object, i+1)
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// textEnd gives the place behind the text that begins at i with its quote.
func textEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			break
		}
		escapes := 0
		for i+n-escapes > i && b[i+n-escapes-1] == '\\' {
			escapes++
		}
		if i += n; escapes%2 == 0 {
			return i + 1
		}
	}
	return len(b)
}

// valueEnd gives the place behind the value that begins at i.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = textEnd(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				return i + 1 + depth // the bracket of the object around belongs to nobody here
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}
