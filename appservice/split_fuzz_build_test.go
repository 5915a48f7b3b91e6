package appservice

import (
	"strings"
	"testing"
)

// builder makes a transaction of bytes that say what comes next, so that nearly everything the fuzzer tries is JSON, and of
// the shape that gets far.
type builder struct {
	choices []byte
	out     strings.Builder
}

func (b *builder) choose(n int) int {
	if len(b.choices) == 0 {
		return 0
	}
	c := int(b.choices[0])
	b.choices = b.choices[1:]
	return c % n
}

func (b *builder) pick(list []string) { b.out.WriteString(list[b.choose(len(list))]) }

// more says whether another member follows; without choices left, none does.
func (b *builder) more() bool { return len(b.choices) > 0 && b.choose(6) != 0 }

var (
	builtNames = []string{
		`"events"`, `"events"`, `"events"`, `"events"`, `"ephemeral"`, `"de.sorunome.msc2409.ephemeral"`, `"to_device"`, `"de.sorunome.msc2409.to_device"`,
		`"device_lists"`, `"org.matrix.msc3202.device_lists"`, `"device_one_time_keys_count"`, `"device_one_time_key_counts"`,
		`"org.matrix.msc3202.device_one_time_keys_count"`, `"org.matrix.msc3202.device_one_time_key_counts"`,
		`"device_unused_fallback_key_types"`, `"org.matrix.msc3202.device_unused_fallback_key_types"`,
		`"Events"`, `"\u0065vents"`, `"to\u005fdevice"`, `""`, `"events\u0000"`, "\"events\xff\"", `"x"`,
	}
	builtFields = []string{
		`"event_id"`, `"room_id"`, `"type"`, `"sender"`, `"state_key"`, `"to_user_id"`, `"to_device_id"`, `"content"`, `"changed"`, `"left"`,
		`"Event_ID"`, `"event\u005fid"`, `"\u0072oom_id"`, `"event_id\\"`, `"\"event_id"`, `""`, `"@u:h"`, "\"type\xc3\"", `"unsigned"`, `"redacts"`,
	}
	builtTexts = []string{
		`"$1"`, `"!r:h"`, `"m.room.encryption"`, `"@s:h"`, `""`, `"D"`, `"m.room.message"`, `"$\u0000"`, `"$\ud800"`, `"$\ud83d\ude00"`,
		"\"$\xff\"", `"$\ufffd"`, `"\ud800\ud83d\ude00"`, `"]}"`, `"\\\""`, `"` + strings.Repeat("é", 127) + `x"`, `"` + strings.Repeat("é", 128) + `"`,
		`"\u00e9\/\b"`, "\"\u2028\"", `"m.room.\u0065ncryption"`,
	}
	builtScalars = []string{
		`null`, `true`, `false`, `0`, `-0`, `1.5`, `1e400`, `123456789012345678901234567890`, `[]`, `{}`, `[[]]`, `{"a":{}}`,
		`{"@u:h":{"D":{"signed_curve25519":3}}}`, `{ }`, `{"changed":["@u:h"],"left":[]}`, `{"changed":[5]}`, `{"changed":null}`,
	}
	builtSpaces = []string{``, ``, ``, ` `, "\n\t", "\r \n"}
)

func (b *builder) body() string {
	b.object(builtNames, func() {
		switch b.choose(8) {
		case 0:
			b.pick(builtScalars)
		case 1:
			b.object(builtFields, b.value)
		default:
			b.list()
		}
	})
	b.pick([]string{``, ``, ``, ``, ``, ``, ``, ``, ``, ``, ``, ` `, `,`, `}`, `x`, `{}`})
	return b.out.String()
}

func (b *builder) object(names []string, value func()) {
	b.out.WriteByte('{')
	for first := true; b.more(); first = false {
		if !first {
			b.out.WriteByte(',')
		}
		b.pick(builtSpaces)
		b.pick(names)
		b.pick(builtSpaces)
		b.out.WriteByte(':')
		b.pick(builtSpaces)
		value()
		b.pick(builtSpaces)
	}
	b.out.WriteByte('}')
}

func (b *builder) list() {
	b.out.WriteByte('[')
	for first := true; b.more(); first = false {
		if !first {
			b.out.WriteByte(',')
		}
		b.pick(builtSpaces)
		switch b.choose(6) {
		case 0:
			b.value()
		case 1:
			b.object(builtFields, b.value)
		case 2: // a to-device message and whatever else
			b.out.WriteString(`{"type":"t","sender":"@s:h","to_user_id":"@u:h","to_device_id":"D"`)
			b.rest()
		default:
			b.out.WriteString(`{"event_id":"$`)
			b.pick([]string{"1", "2", "3", "4"})
			b.out.WriteString(`","room_id":"!r:h","type":"t","sender":"@s:h"`)
			b.rest()
		}
		b.pick(builtSpaces)
	}
	b.out.WriteByte(']')
}

// rest ends an object that has members already with some more, which may take the place of the first ones.
func (b *builder) rest() {
	for b.more() {
		b.out.WriteByte(',')
		b.pick(builtFields)
		b.out.WriteByte(':')
		b.value()
	}
	b.out.WriteByte('}')
}

func (b *builder) value() {
	switch b.choose(4) {
	case 0:
		b.pick(builtScalars)
	case 1:
		b.object(builtFields, func() { b.pick(builtScalars) })
	default:
		b.pick(builtTexts)
	}
}

// FuzzSplit_BuiltTransactions_AgreeWithAFullDecoder is FuzzSplit_AgreesWithAFullDecoder with bodies that are built.
func FuzzSplit_BuiltTransactions_AgreeWithAFullDecoder(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x01\x00\x00\x00\x00\x02\x01\x00\x03\x01\x01\x01\x00\x00\x00"))
	f.Add([]byte("\x01\x00\x03\x00\x00\x03\x01\x00\x02\x02\x01\x04\x02\x08\x00\x00\x01\x00\x05\x00\x00\x00\x0e"))
	f.Fuzz(func(t *testing.T, choices []byte) {
		body := []byte((&builder{choices: choices}).body())
		want, ok := readReference(body)
		got, err := splitTransaction("1", body)
		if (err == nil) != ok {
			t.Fatalf("%q: the splitter says %v, encoding/json takes it: %v", body, err, ok)
		}
		if err == nil && len(want.dead) <= maxBad {
			compareSplit(t, body, got, want)
		}
	})
}

func TestSplit_ManyBuiltTransactions_AgreeWithAFullDecoder(t *testing.T) {
	whole := 0
	for seed := range uint32(3000) {
		choices := make([]byte, 40+seed%200)
		for i, x := 0, seed*2654435761+1; i < len(choices); i++ {
			x ^= x << 13
			x ^= x >> 17
			x ^= x << 5
			choices[i] = byte(x >> 8)
		}
		body := []byte((&builder{choices: choices}).body())
		want, ok := readReference(body)
		got, err := splitTransaction("1", body)
		if (err == nil) != ok {
			t.Fatalf("%q: the splitter says %v, encoding/json takes it: %v", body, err, ok)
		}
		if err == nil {
			compareSplit(t, body, got, want)
			whole += len(want.elements)
		}
	}
	if whole < 500 {
		t.Errorf("only %d good elements were built", whole)
	}
}
