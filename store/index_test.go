package store

import (
	"bytes"
	"reflect"
	"testing"
)

func sampleIndex(elements ...Element) ([]byte, []byte) {
	index, body, _ := gather(elements, func(keyHash) bool { return true }, func(keyHash) bool { return false })
	return index.encode(), body
}

// FuzzDecodeIndex: whatever stands in the column, nothing reaches outside the body, and what is accepted means what it
// is encoded as again.
func FuzzDecodeIndex(f *testing.F) {
	for _, elements := range [][]Element{
		nil,
		{{Kind: KindPDU, Lane: "!a", Key: "$1", Raw: []byte(`{"event_id":"$1"}`)}},
		{{Kind: KindPDU, Lane: "!a", Key: "$1", Raw: []byte(`{}`)}, {Kind: KindToDevice, Lane: "", Raw: nil}, {Kind: KindPDU, Lane: "!a", Raw: []byte("x")}},
	} {
		encoded, _ := sampleIndex(elements...)
		f.Add(encoded)
	}
	f.Add([]byte{1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Add([]byte{1, 1, 0, 1, 1, 0, 255, 255, 255, 255, 15, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeIndex(b)
		if err != nil {
			return
		}
		again, err := decodeIndex(x.encode())
		if err != nil || !reflect.DeepEqual(x, again) {
			t.Fatalf("%v: %+v became %+v", err, x, again)
		}
		newInboxRow(1, x)
		total := 0
		for _, l := range x.refs(1) {
			total += len(l.Refs)
			if !l.Refs[len(l.Refs)-1].Last {
				t.Fatal("a lane has no last element")
			}
		}
		if total != len(x.elements) {
			t.Fatalf("%d elements, %d refs", len(x.elements), total)
		}
		if x.body < 1<<20 {
			body := make([]byte, x.body)
			for pos := range x.elements {
				x.element(body, uint32(pos))
			}
		}
	})
}

func TestIndex_DamagedAnywhere_IsRefusedOrHarmless(t *testing.T) {
	encoded, body := sampleIndex(
		Element{Kind: KindPDU, Lane: "!a", Key: "$1", Raw: []byte(`{"event_id":"$1"}`)},
		Element{Kind: KindPDU, Lane: "!b", Key: "elsewhere", Raw: []byte(`{}`)})
	for i := range encoded {
		if _, err := decodeIndex(encoded[:i]); err == nil {
			t.Errorf("the first %d bytes are taken for an index", i)
		}
		for _, v := range []byte{0, 1, 127, 128, 255} {
			damaged := bytes.Clone(encoded)
			damaged[i] = v
			x, err := decodeIndex(damaged)
			if err != nil || x.body != uint64(len(body)) {
				continue
			}
			for pos := range x.elements {
				x.element(body, uint32(pos))
			}
		}
	}
	if _, err := decodeIndex(append(bytes.Clone(encoded), 0)); err == nil {
		t.Error("bytes behind the end are ignored")
	}
}

func TestRowCache_IsBoundedByBytes(t *testing.T) {
	c := newRowCache(10_000)
	row := func(seq int64, size int) *cachedRow {
		return &cachedRow{seq: seq, index: &rowIndex{}, body: make([]byte, size)}
	}
	read := func(seq int64, size int) {
		t.Helper()
		if got, err := c.get(seq, func() (*cachedRow, error) { return row(seq, size), nil }); err != nil || got.seq != seq {
			t.Fatalf("row %d: %v, %v", seq, got, err)
		}
	}
	for seq := range int64(100) {
		read(seq, 1000)
		if c.size > c.limit {
			t.Fatalf("the cache holds %d bytes", c.size)
		}
	}
	if _, ok := c.rows[99]; !ok || len(c.rows) != 6 {
		t.Errorf("the cache holds %d rows", len(c.rows))
	}
	read(1000, 50_000)
	if len(c.rows) != 1 {
		t.Errorf("beside a row that is larger than the cache there are %d others", len(c.rows)-1)
	}
	read(1001, 10)
	if _, ok := c.rows[1000]; ok || c.size > c.limit {
		t.Errorf("the large row stays: %d bytes", c.size)
	}
	c.drop(1001)
	if c.size != 0 || c.order.Len() != 0 {
		t.Errorf("an empty cache has %d bytes", c.size)
	}
}

func TestRowCache_WhatComesInDuringABacklog_LeavesTheOlderRowsThere(t *testing.T) {
	c := newRowCache(10_000)
	put := func(seq int64, size int) { c.put(&cachedRow{seq: seq, index: &rowIndex{}, body: make([]byte, size)}) }
	for seq := range int64(100) {
		put(seq, 1000)
	}
	for seq := range int64(6) {
		if _, ok := c.rows[seq]; !ok || len(c.rows) != 6 {
			t.Fatalf("of the oldest rows %d is not there, %d are", seq, len(c.rows))
		}
	}
	c.drop(3)
	put(200, 1000)
	if _, ok := c.rows[200]; !ok {
		t.Error("there was room, and a new row was not kept")
	}
	for seq := range int64(201) {
		c.drop(seq)
	}
	put(300, 50_000)
	put(301, 10)
	if _, ok := c.rows[300]; !ok || len(c.rows) != 1 {
		t.Errorf("a row larger than an empty cache was not kept, or another was put beside it: %d rows", len(c.rows))
	}
}
