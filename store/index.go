package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// rowIndex says what lies where in the body of an inbox row. The body is the elements' bytes, one after the other.
//
// Encoded (all numbers are unsigned varints): 1, or 2 where the body is packed; the number of lanes; for each its length and bytes; the number of
// elements; for each its kind, lane, length, length of the key, and when that is not 0 the key's offset in the element
// plus 1, or 0 and the key's bytes. An event carries its own ID, so that a key rarely costs more than four bytes.
type rowIndex struct {
	lanes    []string
	elements []elementIndex
	body     uint64 // length of the body
	packed   bool   // the body is stored as writer.pack made it
}

type elementIndex struct {
	kind   Kind
	lane   uint32
	length uint32
	offset uint64 // in the body
	keyAt  uint32 // in the element; only when key is empty
	keyLen uint32
	key    string // when the element does not contain it
}

const (
	indexVersion = 1
	indexPacked  = 2
)

func (x *rowIndex) add(e *Element, lane uint32) {
	ei := elementIndex{kind: e.Kind, lane: lane, length: uint32(len(e.Raw)), offset: x.body, keyLen: uint32(len(e.Key))}
	if e.Key != "" {
		if at := bytes.Index(e.Raw, []byte(e.Key)); at >= 0 {
			ei.keyAt = uint32(at)
		} else {
			ei.key = e.Key
		}
	}
	x.elements = append(x.elements, ei)
	x.body += uint64(len(e.Raw))
}

func (x *rowIndex) encode() []byte {
	size := 16
	for _, lane := range x.lanes {
		size += len(lane) + 3
	}
	size += len(x.elements) * 12
	b := make([]byte, 0, size)
	if x.packed {
		b = append(b, indexPacked)
	} else {
		b = append(b, indexVersion)
	}
	b = binary.AppendUvarint(b, uint64(len(x.lanes)))
	for _, lane := range x.lanes {
		b = binary.AppendUvarint(b, uint64(len(lane)))
		b = append(b, lane...)
	}
	b = binary.AppendUvarint(b, uint64(len(x.elements)))
	for i := range x.elements {
		e := &x.elements[i]
		b = binary.AppendUvarint(b, uint64(e.kind))
		b = binary.AppendUvarint(b, uint64(e.lane))
		b = binary.AppendUvarint(b, uint64(e.length))
		b = binary.AppendUvarint(b, uint64(e.keyLen))
		switch {
		case e.keyLen == 0:
		case e.key == "":
			b = binary.AppendUvarint(b, uint64(e.keyAt)+1)
		default:
			b = binary.AppendUvarint(b, 0)
			b = append(b, e.key...)
		}
	}
	return b
}

var errIndex = errors.New("damaged inbox index")

// indexReader takes numbers and strings off the front of b; after the first mistake it gives zeros.
type indexReader struct {
	b   []byte
	bad bool
}

func (r *indexReader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > limit {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *indexReader) text(length uint64) string {
	if length > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:length])
	r.b = r.b[length:]
	return s
}

// decodeIndex reads what encode wrote, and refuses everything that would reach outside the body or name no lane.
func decodeIndex(b []byte) (*rowIndex, error) {
	const max32 = 1<<32 - 1
	r := indexReader{b: b}
	version := r.number(max32)
	if version != indexVersion && version != indexPacked {
		return nil, fmt.Errorf("%w: version %d", errIndex, version)
	}
	lanes := r.number(uint64(len(r.b))) // each takes a byte at least
	x := &rowIndex{lanes: make([]string, lanes), packed: version == indexPacked}
	for i := range x.lanes {
		x.lanes[i] = r.text(r.number(max32))
	}
	n := r.number(uint64(len(r.b)) / 4)
	x.elements = make([]elementIndex, n)
	used := make([]bool, lanes)
	for i := range x.elements {
		e := &x.elements[i]
		e.kind = Kind(r.number(255))
		e.lane = uint32(r.number(max32))
		e.length = uint32(r.number(max32))
		e.keyLen = uint32(r.number(max32))
		e.offset = x.body
		x.body += uint64(e.length)
		if e.keyLen > 0 {
			if at := r.number(max32 + 1); at == 0 {
				e.key = r.text(uint64(e.keyLen))
			} else {
				e.keyAt = uint32(at - 1)
				if uint64(e.keyAt)+uint64(e.keyLen) > uint64(e.length) {
					r.bad = true
				}
			}
		}
		if r.bad || uint64(e.lane) >= lanes {
			return nil, fmt.Errorf("%w: element %d", errIndex, i)
		}
		used[e.lane] = true
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: its length", errIndex)
	}
	for i, u := range used {
		if !u {
			return nil, fmt.Errorf("%w: lane %d has no element", errIndex, i)
		}
	}
	return x, nil
}

// element gives the element at pos; body must have the length that the index gives.
func (x *rowIndex) element(body []byte, pos uint32) Element {
	e := &x.elements[pos]
	raw := body[e.offset : e.offset+uint64(e.length) : e.offset+uint64(e.length)]
	key := e.key
	if e.keyLen > 0 && key == "" {
		key = string(raw[e.keyAt : e.keyAt+e.keyLen])
	}
	return Element{Kind: e.kind, Lane: x.lanes[e.lane], Key: key, Raw: raw}
}

// refs gives every lane's elements, lanes in the order of their first element.
func (x *rowIndex) refs(seq int64) []LaneRefs {
	counts := make([]int, len(x.lanes))
	for i := range x.elements {
		counts[x.elements[i].lane]++
	}
	all := make([]Ref, len(x.elements))
	out := make([]LaneRefs, len(x.lanes))
	for i, n := range counts {
		out[i] = LaneRefs{Lane: x.lanes[i], Refs: all[:0:n]}
		all = all[n:]
	}
	for pos := range x.elements {
		l := &out[x.elements[pos].lane]
		l.Refs = append(l.Refs, Ref{Seq: seq, Pos: uint32(pos), Last: len(l.Refs) == cap(l.Refs)-1})
	}
	return out
}
