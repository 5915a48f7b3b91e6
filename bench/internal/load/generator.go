package load

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Numbers in a request have a fixed width, so that they can be written over.
const (
	firstNumber = 1_000_000     // content.n of a room's first event; 7 digits
	firstTxn    = 1_000_000_001 // 10 digits
	idLength    = 43            // of an event ID without its "$": 32 bytes in base64
)

// Generator makes transactions. Its events go round robin over its rooms, whatever the sizes of the transactions.
type Generator struct {
	token string
	seed  uint64
	rooms []room
	shape map[int]*template // by number of events

	next   uint64 // number of the next event
	nextID int64
}

type room struct {
	id string
	n  int64 // of the last event
}

// NewGenerator makes events for so many rooms. Generators with different seeds make different event IDs, even for the
// same appservice.
func NewGenerator(token string, rooms int, seed uint64) *Generator {
	g := &Generator{token: token, seed: seed, rooms: make([]room, rooms), shape: map[int]*template{}, nextID: firstTxn}
	for i := range g.rooms {
		g.rooms[i] = room{id: fmt.Sprintf("!%012xroom%06d:bench.example", mix(seed, uint64(i))&(1<<48-1), i), n: firstNumber}
	}
	return g
}

// Transaction gives the next transaction as a whole HTTP request. It is good until the next call.
func (g *Generator) Transaction(events int) *Request {
	t := g.shape[events]
	if t == nil {
		t = g.newTemplate(events)
		g.shape[events] = t
	}
	id := g.nextID
	g.nextID++
	strconv.AppendInt(t.at(t.txnID), id, 10)
	now := time.Now().UnixMilli()
	for _, slots := range t.events {
		room := &g.rooms[g.next%uint64(len(g.rooms))]
		room.n++
		_ = append(t.at(slots.room), room.id...)
		g.appendText(t.at(slots.text), g.next)
		g.appendEventID(t.at(slots.eventID), g.next)
		strconv.AppendInt(t.at(slots.n), room.n, 10)
		strconv.AppendInt(t.at(slots.sentAt), now, 10)
		g.next++
	}
	return &Request{ID: id, Events: events, bytes: t.request, body: t.body}
}

// Request is one PUT of a transaction.
type Request struct {
	ID     int64
	Events int
	bytes  []byte
	body   int // where the body starts
}

// Body is what the homeserver would call the transaction.
func (r *Request) Body() []byte { return r.bytes[r.body:] }

// template is a request with the places of what changes.
type template struct {
	request []byte
	body    int
	txnID   int
	events  []slots
}

type slots struct{ room, text, eventID, n, sentAt int }

// at gives an empty slice at a place: what is appended there overwrites the request.
func (t *template) at(place int) []byte { return t.request[place:place:len(t.request)] }

// textSize is how long a text is: as long as makes an event of 580 bytes, which is what Synapse sends for a message of two or
// three lines.
const textSize = 206

// words are what people say. Each event says others: a store that packs what is alike must not find more of it than there is.
var words = strings.Fields(`Abend Brücke dreißig Fähre gestern Hafen immer kommen kürzer Laterne Mühle nächste offen später Straße Treppe
	über wieder Zug zwölf answer bridge coming during enough friend ground harbour island journey kitchen leaving message nobody
	orange people quiet remember station tonight usually village window yesterday maybe after before because café naïve résumé
	señor mañana días corazón château élève forêt hiver jamais leçon matin nuage peut-être quelque \"see you there\" ☂`)

// appendText writes textSize bytes.
func (g *Generator) appendText(b []byte, number uint64) {
	end := len(b) + textSize
	for i := uint64(0); ; i++ {
		word := words[mix(g.seed^i<<40, number)%uint64(len(words))]
		if len(b)+len(word) >= end {
			break
		}
		b = append(append(b, word...), ' ')
	}
	for len(b) < end {
		b = append(b, '.')
	}
}

func (g *Generator) newTemplate(events int) *template {
	t := &template{}
	var b strings.Builder
	slot := func(content string) int {
		at := b.Len()
		b.WriteString(content)
		return at
	}
	b.WriteString(`{"events":[`)
	for i := range events {
		if i > 0 {
			b.WriteByte(',')
		}
		var s slots
		b.WriteString(`{"type":"m.room.message","room_id":"`)
		s.room = slot(g.rooms[0].id)
		b.WriteString(`","sender":"@somebody:bench.example","content":{"msgtype":"m.text","body":"`)
		s.text = slot(strings.Repeat("-", textSize))
		b.WriteString(`","m.mentions":{},"n":`)
		s.n = slot(strconv.Itoa(firstNumber))
		b.WriteString(`},"origin_server_ts":`)
		s.sentAt = slot("1000000000000")
		b.WriteString(`,"unsigned":{"membership":"join","age":42},"event_id":"$`)
		s.eventID = slot(strings.Repeat("-", idLength))
		b.WriteString(`","user_id":"@somebody:bench.example","age":42}`)
		t.events = append(t.events, s)
	}
	b.WriteString(`]}`)
	body := b.String()

	const path = "/_matrix/app/v1/transactions/"
	head := "PUT " + path + strconv.FormatInt(firstTxn, 10) + " HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer " + g.token +
		"\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n"
	t.request = []byte(head + body)
	t.body = len(head)
	t.txnID = len("PUT " + path)
	for i := range t.events {
		s := &t.events[i]
		s.room, s.text, s.eventID, s.n, s.sentAt = s.room+t.body, s.text+t.body, s.eventID+t.body, s.n+t.body, s.sentAt+t.body
	}
	return t
}

// appendEventID writes an ID that looks like those of room version 4 and later: a hash, in URL-safe base64.
func (g *Generator) appendEventID(b []byte, number uint64) {
	var raw [32]byte
	for i := range uint64(4) {
		binary.BigEndian.PutUint64(raw[i*8:], mix(g.seed^i<<60, number))
	}
	base64.RawURLEncoding.AppendEncode(b, raw[:])
}

// mix is a permutation of 64 bits (splitmix64) for each seed: different numbers never give the same.
func mix(seed, number uint64) uint64 {
	z := seed*0x9e3779b97f4a7c15 + number + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
