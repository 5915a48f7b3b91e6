package appservice

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/trestle-bridge/trestle/store"
)

// lenient is how everything from the homeserver is read: what other JSON readers let pass must not stall it.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// contents is a transaction taken apart. Elements come in the order in which they are to be worked on: device lists, key
// counts and to-device messages before room events (they bring the keys that the events need).
type contents struct {
	elements  []store.Element
	ephemeral [][]byte
	encrypted []string
	changed   []string // users, of device lists
	dead      []store.DeadLetter
}

// splitter walks over one body. Elements are not decoded: only the few envelope fields that say where an
// element belongs are looked at, and its bytes are kept as they are. Names are compared exactly, and of a name that comes
// twice the last one counts, as in most readers.
type splitter struct {
	txnID string
	out   contents
	rooms map[string]string // room ID to lane, so that a busy room costs one string
	pdus  []store.Element
	deep  *deepElements
	bad   badElements
}

// elementSize is about what an element takes in a body.
const elementSize = 512

// sections are the values of a transaction other than "events", by their unprefixed name. Of several spellings of a
// section only the first in this list that is there and not null is used, so that nothing is handled twice.
var sections = []struct {
	name      string
	spellings []string
}{
	{"device_lists", []string{"device_lists", "org.matrix.msc3202.device_lists"}},
	{"one_time_keys", []string{
		"device_one_time_keys_count", "device_one_time_key_counts",
		"org.matrix.msc3202.device_one_time_keys_count", "org.matrix.msc3202.device_one_time_key_counts",
	}},
	{"fallback_keys", []string{"device_unused_fallback_key_types", "org.matrix.msc3202.device_unused_fallback_key_types"}},
	{"to_device", []string{"to_device", "de.sorunome.msc2409.to_device"}},
	{"ephemeral", []string{"ephemeral", "de.sorunome.msc2409.ephemeral"}},
}

// splitTransaction takes a transaction apart. The error says that the body as a whole is not a JSON object; then nothing
// of it was taken. What it returns refers to body.
func splitTransaction(txnID string, body []byte) (*contents, error) {
	out, err := split(txnID, body, nil)
	if err == nil {
		return out, nil
	}
	// Perhaps because of one element that is nested too deeply for a JSON reader: the others must not suffer from it.
	shallow, deep := cutDeep(body)
	if deep == nil {
		return nil, err
	}
	if out, shallowErr := split(txnID, shallow, deep); shallowErr == nil {
		return out, nil
	}
	return nil, err
}

func split(txnID string, body []byte, deep *deepElements) (*contents, error) {
	s := splitter{txnID: txnID, rooms: make(map[string]string, min(len(body)/elementSize, 128)), deep: deep}
	dec := jsontext.NewDecoder(bytes.NewBuffer(body), lenient)
	if kind := dec.PeekKind(); kind != '{' {
		if _, err := dec.ReadValue(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("it is %s, not an object", kindName(kind))
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	values := make(map[string]jsontext.Value)
	for dec.PeekKind() != '}' {
		name, err := dec.ReadValue()
		if err != nil {
			return nil, err
		}
		switch name := unquote(name); name {
		case "events":
			err = s.events(dec)
		default:
			var value jsontext.Value
			if value, err = dec.ReadValue(); err == nil && value.Kind() != 'n' {
				values[name] = value
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err == nil {
		return nil, errors.New("there is more after the object")
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	s.others(values)
	if len(s.out.elements) == 0 {
		s.out.elements = s.pdus
	} else {
		s.out.elements = append(s.out.elements, s.pdus...)
	}
	s.out.dead = s.bad.letters(txnID)
	return &s.out, nil
}

func (s *splitter) others(values map[string]jsontext.Value) {
	found := make(map[string]jsontext.Value, len(sections))
	for _, section := range sections {
		for _, spelling := range section.spellings {
			if value, ok := values[spelling]; ok {
				found[section.name] = value
				break
			}
		}
	}
	s.deviceLists(found["device_lists"])
	s.keyCounts(found["one_time_keys"], found["fallback_keys"])
	s.list("to_device", found["to_device"], s.toDevice)
	s.list("", found["ephemeral"], func(raw []byte) { s.out.ephemeral = append(s.out.ephemeral, raw) })
}

func (s *splitter) bury(kind, lane, key, cause string, raw []byte) {
	if whole := s.deep.find(raw); whole != nil {
		raw, cause = whole, fmt.Sprintf("it is nested more than %d levels deep", maxDepth)
	}
	// The body tells what is too long for a column.
	if len(lane) > len(roomLane)+maxID {
		lane = ""
	}
	if len(key) > maxID {
		key = ""
	}
	s.bad.add(store.DeadLetter{Kind: kind, Lane: storable(lane), Key: storable(key), Cause: storable(cause), Body: raw})
}

// burySection buries a section as a whole.
func (s *splitter) burySection(name, lane, cause string, value []byte) {
	if whole := s.deep.find(value); whole != nil {
		value, cause = whole, fmt.Sprintf("it is nested more than %d levels deep", maxDepth)
	}
	s.bury("element", lane, s.txnID, cause, section(name, value))
}

// events walks over the array of room events. An error is one of JSON itself.
func (s *splitter) events(dec *jsontext.Decoder) error {
	if kind := dec.PeekKind(); kind != '[' {
		raw, err := dec.ReadValue()
		if err == nil && kind != 'n' {
			s.burySection("events", "", fmt.Sprintf("events is %s, not a list", kindName(kind)), raw)
		}
		return err
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		raw, err := dec.ReadValue()
		if err != nil {
			return err
		}
		s.pdu(raw)
	}
	_, err := dec.ReadToken()
	return err
}

func (s *splitter) pdu(raw jsontext.Value) {
	if kind := raw.Kind(); kind != '{' {
		s.bury("pdu", "", "", fmt.Sprintf("it is %s, not an event", kindName(kind)), raw)
		return
	}
	var e envelope
	e.read(raw)
	lane := ""
	if e.roomID.Kind() == '"' && len(e.roomID) > 2 {
		lane = s.lane(e.roomID)
	}
	var key string
	if e.eventID.Kind() == '"' {
		key = unquote(e.eventID)
	}
	switch problem := e.pduProblem(); {
	case problem != "":
		s.bury("pdu", lane, key, problem, raw)
	default:
		state := e.stateKey.Kind() == '"'
		s.pdus = append(s.pdus, store.Element{Kind: store.KindPDU, Lane: lane, Key: key, State: state, Raw: raw})
		if state && unquote(e.stateKey) == "" && unquote(e.typ) == "m.room.encryption" {
			s.out.encrypted = append(s.out.encrypted, strings.TrimPrefix(lane, roomLane))
		}
	}
}

func (e *envelope) pduProblem() string {
	for _, f := range [...]struct {
		name  string
		value jsontext.Value
		full  bool
	}{{"event_id", e.eventID, true}, {"room_id", e.roomID, true}, {"type", e.typ, false}, {"sender", e.sender, true}} {
		if problem := textProblem(f.name, f.value, f.full); problem != "" {
			return problem
		}
	}
	if kind := e.stateKey.Kind(); e.stateKey != nil && kind != '"' && kind != 'n' {
		return "state_key is " + kindName(kind) + ", not text"
	}
	return ""
}

// maxID is how many bytes an event, room or user ID may have (client-server API, "Common Namespace Format"; room and
// event formats of all room versions).
const maxID = 255

// textProblem says why a value is no text, or with full why it is no ID. An ID that is not UTF-8 is none: several would be
// read as the same, and be taken for duplicates.
func textProblem(name string, value jsontext.Value, full bool) string {
	switch {
	case value == nil:
		return "it has no " + name
	case value.Kind() != '"':
		return name + " is " + kindName(value.Kind()) + ", not text"
	case full && len(value) == 2:
		return name + " is empty"
	case !full:
		return ""
	}
	if inner, plain := plainText(value); plain && len(inner) <= maxID {
		return "" // as nearly all are
	}
	switch plain, exact := unquoteExact(value); {
	case !exact:
		return name + " is not UTF-8"
	case len(plain) > maxID:
		return fmt.Sprintf("%s has more than %d bytes", name, maxID)
	case strings.IndexByte(plain, 0) >= 0:
		return name + " has a NUL in it"
	}
	return ""
}

// storable makes text fit for every database: PostgreSQL takes no NUL and nothing that is not UTF-8.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

const (
	roomLane   = "room:"
	deviceLane = "device:"
	keysLane   = "keys"
)

func (s *splitter) lane(roomID jsontext.Value) string {
	room, plain := plainText(roomID)
	if !plain {
		room = []byte(unquote(roomID))
	}
	if lane, ok := s.rooms[string(room)]; ok {
		return lane
	}
	lane := roomLane + string(room)
	s.rooms[lane[len(roomLane):]] = lane
	return lane
}

// list calls each for every element of a list. A section that is no list is a dead letter of its own, or nothing when
// kind is empty.
func (s *splitter) list(kind string, value jsontext.Value, each func(raw []byte)) {
	if value == nil {
		return
	}
	if value.Kind() != '[' {
		if kind != "" {
			s.burySection(kind, "", fmt.Sprintf("%s is %s, not a list", kind, kindName(value.Kind())), value)
		}
		return
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(value), lenient)
	_, _ = dec.ReadToken() // it was read before: there are no errors left in it
	for dec.PeekKind() != ']' {
		raw, err := dec.ReadValue()
		if err != nil {
			return
		}
		each(raw)
	}
}

func (s *splitter) toDevice(raw []byte) {
	if kind := jsontext.Value(raw).Kind(); kind != '{' {
		s.bury("to_device", "", "", fmt.Sprintf("it is %s, not a message", kindName(kind)), raw)
		return
	}
	var e envelope
	e.read(raw)
	for name, value := range map[string]jsontext.Value{"to_user_id": e.toUser, "to_device_id": e.toDevice, "type": e.typ, "sender": e.sender} {
		if problem := textProblem(name, value, true); problem != "" {
			s.bury("to_device", "", "", problem, raw)
			return
		}
	}
	sum := sha256.Sum256(raw)
	s.out.elements = append(s.out.elements, store.Element{
		Kind: store.KindToDevice,
		Lane: deviceLane + unquote(e.toUser) + "/" + unquote(e.toDevice),
		Key:  s.txnID + "\x00" + hex.EncodeToString(sum[:16]),
		Raw:  raw,
	})
}

func (s *splitter) deviceLists(value jsontext.Value) {
	if value == nil {
		return
	}
	var lists struct {
		Changed []string `json:"changed"`
		Left    []string `json:"left"`
	}
	if err := json.Unmarshal(value, &lists, lenient); err != nil {
		s.burySection("device_lists", keysLane, "device_lists: "+err.Error(), value)
		return
	}
	if len(lists.Changed)+len(lists.Left) > 0 {
		s.out.elements = append(s.out.elements, store.Element{Kind: store.KindDeviceLists, Lane: keysLane, Raw: value})
		for _, user := range append(lists.Changed, lists.Left...) {
			if len(user) <= maxID {
				s.out.changed = append(s.out.changed, user)
			}
		}
	}
}

func (s *splitter) keyCounts(oneTime, fallback jsontext.Value) {
	var raw []byte
	for _, part := range []struct {
		name  string
		value jsontext.Value
	}{{"device_one_time_keys_count", oneTime}, {"device_unused_fallback_key_types", fallback}} {
		switch {
		case part.value == nil:
			continue
		case part.value.Kind() != '{':
			s.burySection(part.name, keysLane, part.name+" is "+kindName(part.value.Kind())+", not an object", part.value)
			continue
		case len(bytes.Trim(part.value, "{} \t\r\n")) == 0:
			continue
		}
		if raw == nil {
			raw = append(raw, '{')
		} else {
			raw = append(raw, ',')
		}
		raw = append(raw, '"')
		raw = append(raw, part.name...)
		raw = append(raw, '"', ':')
		raw = append(raw, part.value...)
	}
	if raw != nil {
		s.out.elements = append(s.out.elements, store.Element{Kind: store.KindKeyCounts, Lane: keysLane, Raw: append(raw, '}')})
	}
}

// unquote gives the text of a JSON string. What is not UTF-8 in it becomes U+FFFD.
func unquote(quoted []byte) string {
	plain, _ := unquoteExact(quoted)
	return plain
}

// unquoteExact is unquote, and says whether nothing became U+FFFD.
func unquoteExact(quoted []byte) (plain string, exact bool) {
	if len(quoted) < 2 || quoted[0] != '"' {
		return "", false
	}
	if inner, plain := plainText(quoted); plain {
		return string(inner), true // as nearly all are
	}
	out, err := jsontext.AppendUnquote(nil, quoted)
	return string(out), err == nil
}

// plainText gives what stands between the quotes of a JSON string, and whether that is its text as it is.
func plainText(quoted []byte) (inner []byte, plain bool) {
	inner = quoted[1 : len(quoted)-1]
	return inner, bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner)
}

func kindName(kind jsontext.Kind) string {
	switch kind {
	case 'n':
		return "null"
	case 't', 'f':
		return "a truth value"
	case '"':
		return "text"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "a list"
	}
	return "not JSON"
}
