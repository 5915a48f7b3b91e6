//go:build failpoints

package simulation

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/store"
)

// twice is a world in which one message is sent more than once, by a bridge that may send again what is in doubt.
type twice struct {
	*world
	session *session
	event   store.Ref
}

func newTwice(t *testing.T) *twice {
	w := &world{T: t, choices: newChoices(1), ctx: t.Context(), dir: t.TempDir(), loose: map[string]bool{}, character: character{atLeastOnce: true}}
	w.net = newNetwork(w.choices, w.character, w.note)
	w.wrote = []*written{{marker: "m0-1", event: "$1"}}
	s := &twice{world: w, session: &session{n: w.net}}
	s.store(func(tx *store.Tx) error {
		lanes, err := tx.Ingest(&store.Transaction{ID: "1", Received: time.Now(), Elements: []store.Element{
			{Kind: store.KindPDU, Lane: "room", Key: "$1", Raw: []byte(`{"event_id":"$1"}`)},
		}})
		if err == nil {
			s.event = lanes[0].Refs[0]
		}
		return err
	})
	return s
}

func (s *twice) store(job func(tx *store.Tx) error) {
	db, err := store.Open(s.ctx, "sqlite:"+filepath.Join(s.dir, "bridge.db"), store.Options{Log: zerolog.Nop()})
	s.ok(err)
	s.ok(db.Commit(s.ctx, db.Epoch(), job))
	s.ok(db.Close())
}

func (s *twice) arrives() { s.session.arrives(&bridge.Message{ID: "$1"}, "m0-1") }

// doubt is an answer that the bridge does not get.
func (s *twice) doubt() { s.net.doubt("m0-1") }

// commits is what the bridge does when it has the answer.
func (s *twice) commits() {
	s.store(func(tx *store.Tx) error { return tx.Finish("room", s.event) })
}

func (s *twice) anotherProcess() {
	s.net.die()
	s.unsettle(filepath.Join(s.dir, "bridge.db"))
	s.session = &session{n: s.net}
}

func (s *twice) found() bool {
	s.checkNetwork(letters{}, nil, &tally{})
	return slices.Contains(s.wrong, "sent again without a reason: m0-1")
}

// The answer is there, and the process ends before its commit: the next one sends it again, and again when it is in doubt.
func TestCheck_ProcessesEndBeforeTheyHaveCommittedWhatTheySent_ItMayComeAgainEachTime(t *testing.T) {
	s := newTwice(t)
	s.arrives()
	s.doubt()
	s.arrives()
	s.anotherProcess()
	s.arrives()
	s.doubt()
	s.arrives()
	if s.found() {
		t.Errorf("the checker says %q", s.wrong)
	}
}

func TestCheck_SentAgainWithoutAReason_IsFound(t *testing.T) {
	for name, happens := range map[string]func(s *twice){
		"by the same process": func(s *twice) {},
		"by one that has it in its store no more": func(s *twice) {
			s.commits()
			s.anotherProcess()
		},
		"more often than it was in doubt": func(s *twice) {
			s.doubt()
			s.arrives()
		},
		"more often than processes ended": func(s *twice) {
			s.anotherProcess()
			s.arrives()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTwice(t)
			s.arrives()
			happens(s)
			s.arrives()
			if !s.found() {
				t.Error("the checker has nothing to say")
			}
		})
	}
}
