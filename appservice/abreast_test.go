package appservice

import (
	"testing"

	"github.com/trestle-bridge/trestle/store"
)

func TestNearby_GivesEventsOfRowsThatLieTogether(t *testing.T) {
	refs := []store.Ref{{Seq: 100}, {Seq: 100, Pos: 1}, {Seq: 100 + turnRows - 1}, {Seq: 100 + turnRows}, {Seq: 5000}}
	for first, want := range []int{3, 2, 2, 1, 1} {
		if got := nearby(refs[first:]); len(got) != want || got[0] != refs[first] {
			t.Errorf("from %d on: %v", first, got)
		}
	}
}

func TestAbreast_LaneThatIsAhead_GivesItsTurnAwayUntilTheOthersHaveHadTheirs(t *testing.T) {
	a := newAbreast()
	ahead := func(seq int64) bool { return a.ahead(store.Ref{Seq: seq}) }
	if ahead(1000) || ahead(1000+abreastRows) || ahead(990) {
		t.Error("lanes that are abreast give turns away")
	}
	if !ahead(990 + abreastRows + 1) {
		t.Error("a lane that is ahead does not")
	}
	// The one at 990 has a slow handler and takes no more turns: the others soon go on.
	turns := 0
	for ahead(5000) {
		if turns++; turns > 2*abreastTurns+1 {
			t.Fatalf("a lane has given away %d turns", turns)
		}
	}
	if ahead(5000) {
		t.Error("it has to wait again")
	}
}
