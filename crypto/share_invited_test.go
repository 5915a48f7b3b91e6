//go:build goolm

package crypto_test

import (
	"fmt"
	"testing"

	"maunium.net/go/mautrix/id"
)

// has says whether somebody's device has a room key.
func (p *person) has(room id.RoomID, session id.SessionID) bool {
	p.w.t.Helper()
	p.sync(room)
	got, _ := p.olm.CryptoStore.GetGroupSession(p.w.t.Context(), room, session)
	return got != nil
}

func TestShare_Invited_HasAKeyWhereTheVisibilityLetsThemRead_AndInAnyCaseOnceTheyJoin(t *testing.T) {
	for visibility, reads := range map[string]bool{"world_readable": true, "shared": true, "invited": true, "joined": false, "odd": false, "": false} {
		t.Run(fmt.Sprintf("%q", visibility), func(t *testing.T) {
			w := newWorld(t)
			ghost := w.ghost("ann")
			w.no(w.crypto.Prepare(t.Context(), ghost))
			room := w.room(ghost)
			w.no(state(w.alice, room, "m.room.history_visibility", fmt.Sprintf(`{"history_visibility":%q}`, visibility)))
			bob := newPerson(w, "bob")
			w.settle()
			before := w.session(ghost, room)
			w.no(w.alice.Invite(t.Context(), room, bob.ID()))
			w.settle()
			invited := w.session(ghost, room)
			if bob.has(room, invited) != reads {
				t.Errorf("invited, bob has the key: %t, want %t", !reads, reads)
			}
			_, err := bob.Join(t.Context(), string(room))
			w.no(err)
			w.settle()
			if joined := w.session(ghost, room); !bob.has(room, joined) {
				t.Error("bob has joined, and has no key of what is said since")
			} else if !reads && (joined == invited || joined == before) {
				t.Error("bob reads what was said before he joined")
			}
			if bob.has(room, before) {
				t.Error("bob reads what was said before he was invited")
			}
		})
	}
}

func TestShare_InvitationThatIsDeclined_TakesTheKeyAway(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	room := w.room(ghost)
	bob := newPerson(w, "bob")
	w.no(w.alice.Invite(t.Context(), room, bob.ID()))
	w.settle()
	invited := w.session(ghost, room)
	w.no(bob.Leave(t.Context(), room, ""))
	w.settle()
	if w.session(ghost, room) == invited {
		t.Error("who was invited and declined reads on")
	}
}
