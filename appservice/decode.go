package appservice

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// exactNames reads like encoding/json, except that names are compared exactly: "Event_ID" is not "event_id", and "Body"
// must not take the place of "body".
var exactNames = json.JoinOptions(jsonv1.DefaultOptionsV1(), json.MatchCaseInsensitiveNames(false))

// fullEvent is what a room event or a to-device message may hold. Content stays raw at first.
type fullEvent struct {
	Type        string         `json:"type"`
	Sender      id.UserID      `json:"sender"`
	ID          id.EventID     `json:"event_id"`
	RoomID      id.RoomID      `json:"room_id"`
	StateKey    *string        `json:"state_key"`
	Timestamp   int64          `json:"origin_server_ts"`
	Content     jsontext.Value `json:"content"`
	Redacts     id.EventID     `json:"redacts"`
	Unsigned    event.Unsigned `json:"unsigned"`
	PrevContent jsontext.Value `json:"prev_content"`
	Replaces    id.EventID     `json:"replaces_state"`
	Sticky      *event.Sticky  `json:"msc4354_sticky"`
	ToUserID    id.UserID      `json:"to_user_id"`
	ToDeviceID  id.DeviceID    `json:"to_device_id"`
}

// Decode gives the whole event with its content parsed to mautrix's type for it, when there is one. It is read once and
// kept; the result must not be changed. The error is permanent: an event whose Decode failed becomes a dead letter,
// whatever its handler returns. Device lists and key counts are no events.
func (e *Event) Decode() (*event.Event, error) {
	if e.decoded == nil && e.decodeErr == nil {
		if e.decoded, e.decodeErr = decode(e.Kind, e.Raw); e.decodeErr != nil {
			e.decodeErr = Permanent(fmt.Errorf("decode %s %s: %w", e.Type, e.ID, e.decodeErr))
		}
	}
	return e.decoded, e.decodeErr
}

func decode(kind store.Kind, raw []byte) (*event.Event, error) {
	class := event.MessageEventType
	switch kind {
	case store.KindPDU:
	case store.KindToDevice:
		class = event.ToDeviceEventType
	default:
		return nil, fmt.Errorf("kind %d is not an event", kind)
	}
	var full fullEvent
	if err := json.Unmarshal(raw, &full, exactNames); err != nil {
		return nil, err
	}
	if full.StateKey != nil && kind == store.KindPDU {
		class = event.StateEventType
	}
	evt := &event.Event{
		StateKey: full.StateKey, Sender: full.Sender, Type: event.Type{Type: full.Type, Class: class}, Timestamp: full.Timestamp,
		ID: full.ID, RoomID: full.RoomID, Redacts: full.Redacts, Unsigned: full.Unsigned, Sticky: full.Sticky,
		ToUserID: full.ToUserID, ToDeviceID: full.ToDeviceID,
	}
	if err := parseContent(&evt.Content, full.Content, evt.Type); err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	if full.PrevContent != nil && full.PrevContent.Kind() != 'n' && evt.Unsigned.PrevContent == nil {
		evt.Unsigned.PrevContent = new(event.Content)
		if err := parseContent(evt.Unsigned.PrevContent, full.PrevContent, event.Type{}); err != nil {
			return nil, fmt.Errorf("prev_content: %w", err)
		}
	}
	if evt.Unsigned.ReplacesState == "" {
		evt.Unsigned.ReplacesState = full.Replaces
	}
	if content, ok := evt.Content.Parsed.(*event.RedactionEventContent); ok && evt.Redacts == "" {
		evt.Redacts = content.Redacts // room versions from 11 on keep it in the content
	}
	return evt, nil
}

func parseContent(into *event.Content, raw jsontext.Value, typ event.Type) error {
	if raw == nil || raw.Kind() == 'n' {
		raw = jsontext.Value("{}")
	}
	into.VeryRaw = bytes.Clone(raw)
	if err := json.Unmarshal(raw, &into.Raw, exactNames); err != nil {
		return err
	}
	if parsed, known := event.TypeMap[typ]; known {
		into.Parsed = reflect.New(parsed).Interface()
		return json.Unmarshal(raw, into.Parsed, exactNames)
	}
	return nil
}

// newEvent makes the event of a stored element, whose envelope was found good when it came in.
func newEvent(el store.Element) *Event {
	ev := &Event{Lane: el.Lane, Kind: el.Kind, Raw: el.Raw}
	if el.Kind != store.KindPDU && el.Kind != store.KindToDevice {
		return ev
	}
	var e envelope
	e.read(el.Raw)
	ev.Type = unquote(e.typ)
	ev.Sender = id.UserID(unquote(e.sender))
	if el.Kind == store.KindToDevice {
		ev.ToUserID = id.UserID(unquote(e.toUser))
		ev.ToDeviceID = id.DeviceID(unquote(e.toDevice))
		return ev
	}
	ev.ID = id.EventID(el.Key)
	ev.RoomID = id.RoomID(strings.TrimPrefix(el.Lane, roomLane))
	if e.stateKey.Kind() == '"' {
		key := unquote(e.stateKey)
		ev.StateKey = &key
	}
	return ev
}
