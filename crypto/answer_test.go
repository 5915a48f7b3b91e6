//go:build goolm

package crypto_test

import (
	"fmt"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// crowd is a room with a ghost, and people who are asked about: so many, each with a device of their own.
func (w *world) crowd(many int) (ghost id.UserID, room id.RoomID, people []*person) {
	w.t.Helper()
	ghost = w.ghost("ann")
	w.no(w.crypto.Prepare(w.t.Context(), ghost))
	room = w.room(ghost)
	w.session(ghost, room) // what is done once is done
	for n := range many {
		p := newPerson(w, fmt.Sprint("p", n))
		_, err := p.Join(w.t.Context(), string(room))
		w.no(err)
		people = append(people, p)
	}
	w.settle()
	return ghost, room, people
}

// costs is what something costs the store: commits, and times at which a user's room keys were dropped.
func (w *world) costs(do func()) (jobs, drops int) {
	w.t.Helper()
	w.settle()
	jobs, before := w.jobs(), w.store.KeyDrops()
	do()
	return w.jobs() - jobs, int(w.store.KeyDrops()-before) / 2 // each is told before the commit and after it
}

func TestDevices_FirstAnswerAboutPeople_IsOneCommitAndTakesNoKeyAway(t *testing.T) {
	w := newWorld(t)
	w.with(func(o *crypto.Options) { o.Receive, o.Send = crypto.TrustCrossSigned, crypto.TrustCrossSigned })
	ghost, room, people := w.crowd(6)
	for _, p := range people {
		p.signs()
	}
	jobs, drops := w.costs(func() { w.session(ghost, room) })
	if jobs > len(people)+4 { // the answer, the claimed sessions, the key's own, and the message
		t.Errorf("%d commits", jobs)
	}
	if drops != 0 {
		t.Errorf("keys were dropped %d times, and none of these people had any", drops)
	}
	session := w.session(ghost, room)
	for _, p := range people {
		p.sync(room)
		if got, err := p.olm.CryptoStore.GetGroupSession(t.Context(), room, session); got == nil {
			t.Errorf("%s has no key: %v", p.ID(), err)
		}
	}
}

func TestDevices_AnswerThatChangesMuch_DropsTheKeysOfEachUserOnce(t *testing.T) {
	w := newWorld(t)
	w.with(func(o *crypto.Options) { o.Receive, o.Send = crypto.TrustCrossSigned, crypto.TrustCrossSigned })
	ghost, room, people := w.crowd(20) // more than are looked for at once
	before := w.session(ghost, room)
	for _, p := range people {
		p.signs()
	}
	var after id.SessionID
	_, drops := w.costs(func() { after = w.session(ghost, room) })
	if after == before {
		t.Error("the key is still in use")
	}
	if drops != len(people) {
		t.Errorf("the keys of %d people were dropped %d times", len(people), drops)
	}
	names := make([]string, len(people))
	for n, p := range people {
		names[n] = string(p.ID())
	}
	jobs, drops := w.costs(func() {
		w.no(w.store.Commit(t.Context(), w.store.Epoch(), func(tx *store.Tx) error { return tx.OutdateDevices(names...) }))
		if w.session(ghost, room) != after {
			t.Error("nothing has changed, and the room has another key")
		}
	})
	if jobs > 5 || drops != 0 { // the mark, the answer, the message
		t.Errorf("an answer with nothing new is %d commits and %d drops", jobs, drops)
	}
}

func TestDevices_LongAnswer_IsSeveralCommitsAndNoUserIsInTwo(t *testing.T) {
	for _, c := range []struct {
		rows []int
		want string
	}{
		{nil, "[]"},
		{[]int{1, 2, 3}, "[3]"},
		{[]int{crypto.MostLearnt, 1}, "[1 1]"},
		{[]int{crypto.MostLearnt - 1, 1, 1}, "[2 1]"},
		{[]int{1, 3 * crypto.MostLearnt, 1}, "[1 1 1]"},
	} {
		if got := fmt.Sprint(crypto.Commits(c.rows...)); got != c.want {
			t.Errorf("%v: %s, want %s", c.rows, got, c.want)
		}
	}
}
