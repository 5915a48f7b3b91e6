package appservice

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"strconv"

	"github.com/trestle-bridge/trestle/store"
)

// maxBad is how many elements of one transaction become dead letters of their own.
const maxBad = 1000

// badElements gathers what cannot be taken in. When there is too much of it, all of it becomes one dead letter, whose body
// is a transaction of nothing else: a homeserver that sends nothing but nonsense must not fill the store with rows.
type badElements struct {
	dead     []store.DeadLetter
	sections []byte            // values of the sections that are bad as a whole, once there are too many
	lists    map[string][]byte // the bad members of the others, by section
	n        int
}

func (b *badElements) add(d store.DeadLetter) {
	if b.n++; b.n <= maxBad {
		b.dead = append(b.dead, d)
		return
	}
	if b.lists == nil {
		b.lists = make(map[string][]byte)
		for i := range b.dead {
			b.join(&b.dead[i])
		}
		b.dead = b.dead[:1:1]
	}
	b.join(&d)
}

func (b *badElements) join(d *store.DeadLetter) {
	switch d.Kind {
	case "pdu":
		b.lists["events"] = joined(b.lists["events"], d.Body)
	case "to_device":
		b.lists["to_device"] = joined(b.lists["to_device"], d.Body)
	default:
		b.sections = joined(b.sections, d.Body[1:len(d.Body)-1]) // what stands in the braces of section
	}
}

func joined(list, raw []byte) []byte {
	if list != nil {
		list = append(list, ',')
	}
	return append(list, raw...)
}

func (b *badElements) letters(txnID string) []store.DeadLetter {
	if b.lists == nil {
		return b.dead
	}
	members := b.sections
	for _, name := range []string{"to_device", "events"} {
		if list := b.lists[name]; list != nil {
			members = joined(members, []byte(`"`+name+`":[`))
			members = append(append(members, list...), ']')
		}
	}
	return []store.DeadLetter{{
		Kind: "element", Key: storable(txnID), Body: braced(members),
		Cause: fmt.Sprintf("%d elements of a transaction cannot be taken in; of the first: %s", b.n, b.dead[0].Cause),
	}}
}

// section is a transaction that has one section and nothing else: what a dead letter of a whole section holds, so that it
// says by itself what it is.
func section(name string, value []byte) []byte {
	return braced(append([]byte(`"`+name+`":`), value...))
}

func braced(members []byte) []byte { return append(append([]byte{'{'}, members...), '}') }

// maxDepth is how deeply a body may be nested for the JSON reader, which knows no way to go on behind what is deeper.
const maxDepth = 10_000

// deepElements are the elements that cutDeep took out of a body, and what stands there instead: a text that begins with
// a random mark, so that no homeserver can have sent it.
type deepElements struct {
	mark     string
	elements [][]byte
}

// find gives the element in whose place raw stands, or nil.
func (d *deepElements) find(raw []byte) []byte {
	if d == nil {
		return nil
	}
	number, ok := bytes.CutPrefix(raw, []byte(`"`+d.mark))
	if !ok {
		return nil
	}
	i, err := strconv.Atoi(string(bytes.TrimSuffix(number, []byte(`"`))))
	if err != nil || i >= len(d.elements) {
		return nil
	}
	return d.elements[i]
}

// cutDeep takes what is nested too deeply out of a body: the members of its lists, or whole values of the body that are
// no lists. It looks at brackets and quotes only; what is left is still to be read as JSON. The result is nil when there
// is nothing to take out.
func cutDeep(body []byte) ([]byte, *deepElements) {
	var out []byte
	var found *deepElements
	var depth, kept, value, member int // kept: what is in out already; value, member: where those of now begin
	inList, tooDeep, inText := false, false, false
	cut := func(from, to int) {
		if found == nil {
			found = &deepElements{mark: rand.Text() + "-"}
		}
		out = append(out, body[kept:from]...)
		out = append(out, `"`+found.mark+strconv.Itoa(len(found.elements))+`"`...)
		found.elements = append(found.elements, body[from:to])
		kept, tooDeep = to, false
	}
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			switch depth++; depth {
			case 2:
				value, inList = i, c == '['
			case 3:
				member = i
			}
			tooDeep = tooDeep || depth > maxDepth
		case c == '}' || c == ']':
			switch {
			case tooDeep && depth == 3 && inList:
				cut(member, i+1)
			case tooDeep && depth == 2:
				cut(value, i+1)
			}
			depth--
		}
	}
	return append(out, body[kept:]...), found
}
