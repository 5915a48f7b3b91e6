package appservice

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// FuzzParseRegistration_WhatItTakesSurvivesSaving: the parser never panics, every mistake names a line of the file and a
// mend and shows no token, and what is taken is the same after it was written and read again.
func FuzzParseRegistration_WhatItTakesSurvivesSaving(f *testing.F) {
	text := generated(f)
	f.Add([]byte(text))
	for _, c := range [][2]string{
		{"id: 'irc'", `id: "tab\there, \u2028, \U0001f986 and \x07"`}, {"id: 'irc'", "id: |\n  two\n  lines"}, {"id: 'irc'", "id: >-\n  folded\n  # not a comment"},
		{"id: 'irc'", "id: !!str 5"}, {"id: 'irc'", "id: &x irc\n'other.key': *x"}, {"id: 'irc'", "id: 'it''s'"}, {"id: 'irc'", "id: ~"}, {"id: 'irc'", "id: [irc]"},
		{"protocols: ['irc']", "protocols: [irc, 'a, b', \"\\\"\", '']"}, {"protocols: ['irc']", "protocols: ~"}, {"protocols: ['irc']", "protocols: {}"},
		{"receive_ephemeral: true", "receive_ephemeral: false"}, {"receive_ephemeral: true", "receive_ephemeral: yes"}, {"receive_ephemeral: true", "receive_ephemeral: [m.typing]"},
		{"  rooms: []", "  rooms:\n    - {exclusive: false, regex: '^!.*'}"}, {"  rooms: []", "  rooms: ~"}, {"  rooms: []", "  rooms: *nowhere"},
		{"namespaces:", "namespaces: &ns\n  rooms: *ns"}, {"rate_limited: false", "rate_limited: false\nrate_limited: true"}, {"\nid:", "\n---\nid:"}, {"\nid:", "\n\tid:"},
	} {
		f.Add([]byte(strings.Replace(text, c[0], c[1], 1)))
	}
	f.Add([]byte("id: &a irc\nurl: *a\n"))
	f.Add([]byte("namespaces: {users: [{regex: a, exclusive: true}]}\n<<: {a: b}\n? [x]\n: y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		reg, err := ParseRegistration("r.yaml", data)
		if err != nil {
			checkMistakes(t, data, err)
			return
		}
		written := reg.YAML()
		again, err := ParseRegistration("r.yaml", written)
		if err != nil {
			t.Fatalf("%v in\n%s", err, written)
		}
		for _, list := range []*[]Namespace{
			&reg.Namespaces.Aliases, &reg.Namespaces.Rooms, &again.Namespaces.Aliases, &again.Namespaces.Rooms,
		} {
			if len(*list) == 0 {
				*list = nil // none, however that was written
			}
		}
		if len(reg.Protocols) == 0 {
			reg.Protocols, again.Protocols = nil, nil
		}
		if !reflect.DeepEqual(again, reg) {
			t.Fatalf("%+v became %+v by\n%s", reg, again, written)
		}
		if !bytes.Equal(again.YAML(), written) {
			t.Fatalf("it is written as\n%s\nand then as\n%s", written, again.YAML())
		}
	})
}

func checkMistakes(t *testing.T, data []byte, err error) {
	t.Helper()
	var mistakes Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) == 0 {
		t.Fatalf("the error is %v", err)
	}
	// YAML breaks lines at \r, NEL and the Unicode separators as well.
	lines := 1
	for _, brk := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		lines += bytes.Count(data, []byte(brk))
	}
	before := 0
	for _, m := range mistakes {
		if m.Line < 1 || m.Line > lines+1 || m.Line < before || m.Problem == "" || m.Mend == "" || m.File != "r.yaml" {
			t.Fatalf("%q has %d lines and the mistake %+v", data, lines, m)
		}
		before = m.Line
	}
}
