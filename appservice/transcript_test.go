package appservice

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

// transcribed is a transaction of a shape that a homeserver really sent, and what it has to become.
type transcribed struct {
	What      string          `json:"what"`
	ID        string          `json:"id"`
	Body      json.RawMessage `json:"body"`
	Events    int             `json:"events"` // that are new
	ToDevice  int             `json:"to_device"`
	Keys      int             `json:"keys"`      // device lists, and key counts
	Ephemeral []string        `json:"ephemeral"` // as describe says them
}

func jsonLines(t testing.TB, path string, each func(line []byte)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		each(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// The transactions come one after another, as they would from one homeserver that is Synapse and Dendrite by turns.
func TestTranscripts_WhatHomeserversReallySend_IsHandledWhole(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) {
		c.ServerName = "one.example"
		c.Registration.Namespaces.Users = []Namespace{{true, `@irc_.*:one\.example`}}
	})
	f.rec.handle = decodeAll
	jsonLines(t, filepath.Join("testdata", "transactions.jsonl"), func(line []byte) {
		var tr transcribed
		if err := json.Unmarshal(line, &tr); err != nil {
			t.Fatal(err)
		}
		before := len(f.rec.waitEvents(0))
		f.mustPut(tr.ID, string(tr.Body))
		if got := f.handedOver(); !slices.Equal(got, tr.Ephemeral) {
			t.Errorf("%s: handed over %q, want %q", tr.What, got, tr.Ephemeral)
		}
		f.idle()
		var got transcribed
		for _, ev := range f.rec.waitEvents(0)[before:] {
			switch ev.Kind {
			case store.KindPDU:
				got.Events++
			case store.KindToDevice:
				got.ToDevice++
			default:
				got.Keys++
			}
		}
		if got.Events != tr.Events || got.ToDevice != tr.ToDevice || got.Keys != tr.Keys {
			t.Errorf("%s: %d events, %d to-device messages, %d of keys; want %d, %d, %d", tr.What, got.Events, got.ToDevice, got.Keys, tr.Events, tr.ToDevice, tr.Keys)
		}
		if dead := f.deadLetters(); len(dead) != 0 {
			t.Errorf("%s: dead letters %+v", tr.What, dead)
		}
	})
}

// transcriptsVariable names a directory with transcripts of homeservers: files *.jsonl, a request on each line, with method,
// path and body (as text). Whoever has some can have them tested.
const transcriptsVariable = "TRESTLE_TRANSCRIPTS"

func TestTranscripts_OfADirectoryThatIsNamed_AreTakenWhole(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(os.Getenv(transcriptsVariable), "*.jsonl"))
	if os.Getenv(transcriptsVariable) == "" {
		files, err = []string{}, nil // there are none to take
	} else if len(files) == 0 {
		t.Fatalf("%s names a directory without transcripts: %v", transcriptsVariable, err)
	}
	n := 0
	for _, file := range files {
		jsonLines(t, file, func(line []byte) {
			var request struct{ Method, Path, Body string }
			if err := json.Unmarshal(line, &request); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if request.Method != "PUT" || !strings.Contains(request.Path, "/transactions/") {
				return
			}
			n++
			want, ok := readReference([]byte(request.Body))
			got, err := splitTransaction("1", []byte(request.Body))
			if err != nil || !ok || len(got.dead) != 0 {
				t.Errorf("%s: %s: %v, dead letters %+v", file, request.Path, err, got)
				return
			}
			compareSplit(t, []byte(request.Body), got, want)
			for _, el := range got.elements {
				if el.Kind != store.KindPDU && el.Kind != store.KindToDevice {
					continue
				}
				if _, err := newEvent(el).Decode(); err != nil {
					t.Errorf("%s: %s: %v", file, fmt.Sprint(el.Key), err)
				}
			}
		})
	}
	t.Logf("%d transactions of %d files", n, len(files))
}
