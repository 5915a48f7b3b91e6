package irc

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// every runs a story in every order there is, or in as many as most, of a seed.
func every(t *testing.T, sc story, most int, tail int) (runs int) {
	t.Helper()
	var path []int // the choices of this run, and of how many
	var width []int
	for {
		depth := 0
		m := newModel(sc, func() int { return tail })
		steps, err := m.run(func(n int) int {
			if depth == len(path) {
				path, width = append(path, 0), append(width, n)
			}
			depth++
			return path[depth-1]
		}, false)
		if runs++; err != nil {
			t.Errorf("%s, read as %s, of a cut link %d less: %v", strings.Join(sc, " "), steps, tail, err)
			return runs
		}
		for len(path) > 0 && path[len(path)-1] == width[len(width)-1]-1 {
			path, width = path[:len(path)-1], width[:len(width)-1]
		}
		if len(path) == 0 {
			return runs
		}
		path[len(path)-1]++
		if runs >= most {
			break
		}
	}
	for seed := range uint64(most / 4) {
		rng := rand.New(rand.NewPCG(seed, 1))
		steps, err := newModel(sc, func() int { return tail }).run(rng.IntN, true)
		if runs++; err != nil {
			t.Errorf("%s, read as %s, of a cut link %d less: %v", strings.Join(sc, " "), steps, tail, err)
			return runs
		}
	}
	return runs
}

// stories are all of so many words. can says what can follow what happened to a session.
func stories(ids string, n int, can map[byte]string, do func(story)) {
	last := map[byte]byte{}
	var sc story
	var grow func()
	grow = func() {
		if len(sc) == n {
			do(slices.Clone(sc))
			return
		}
		for i := range len(ids) {
			id := ids[i]
			was := last[id]
			for _, kind := range []byte(can[was]) {
				last[id] = kind
				if can[kind] == "" { // it is out
					last[id] = 0
				}
				sc = append(sc, string(kind)+string(id))
				grow()
				sc = sc[:len(sc)-1]
			}
			last[id] = was
		}
	}
	grow()
}

func TestWatch_TwoSessionsReadAtAnySpeed_EachLineIsDeliveredOnceAndInOrder(t *testing.T) {
	runs, n := 0, 0
	for length := 2; length <= 4; length++ {
		stories("ra", length, usual, func(sc story) {
			for tail := range 3 {
				n++
				runs += every(t, sc, 80, tail)
			}
		})
	}
	t.Logf("%d stories, %d runs", n, runs)
}

func TestWatch_ThreeSessionsReadAtAnySpeed_EachLineIsDeliveredOnceAndInOrder(t *testing.T) {
	runs := 0
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		inside, off, splits := map[byte]bool{}, byte(0), seed%2 == 0
		var sc story
		for range 4 + rng.IntN(8) {
			id := "rabo"[rng.IntN(4)]
			kind := "J"
			switch {
			case id == 'o':
				kind = ""
			case off == id:
				kind, off = "H", 0
			case inside[id] && off == 0 && splits && rng.IntN(3) == 0:
				kind, off = "S", id
			case inside[id] && rng.IntN(6) == 0:
				kind = "N"
			case inside[id]:
				kind = string("PKFCCC"[rng.IntN(6)])
				if splits && id == 'r' && (kind == "K" || kind == "F") {
					kind = "C" // what is said before it knows reaches who is on the other side
				}
				inside[id] = false
			case off != 0:
				continue // nobody comes in while the network is split
			default:
				inside[id] = true
			}
			sc = append(sc, kind+string(id))
		}
		tail := rng.IntN(4)
		for range 3 {
			steps, err := newModel(sc, func() int { return tail }).run(rng.IntN, true)
			if runs++; err != nil {
				t.Fatalf("%d words, seed %d: %s, read as %s, of a cut link %d less: %v", len(sc), seed, strings.Join(sc, " "), steps, tail, err)
			}
		}
	}
	t.Logf("%d runs", runs)
}

// What is rarer than coming and going: a nick is changed, a server splits off and comes back, a JOIN is shown late or never.
func TestWatch_NicksSplitsAndHiddenJoins_EachLineIsDeliveredOnceAndInOrder(t *testing.T) {
	for name, can := range map[string]map[byte]string{
		"nicks":  {0: "J", 'J': "NPKC", 'N': "NFC"},
		"splits": {0: "J", 'J': "SC", 'S': "HC", 'H': "SCP"},
		"hidden": {0: "JD", 'J': "PC", 'D': "XPC", 'X': "PC"},
	} {
		t.Run(name, func(t *testing.T) {
			runs, n := 0, 0
			for length := 2; length <= 6; length++ {
				stories("ra", length, can, func(sc story) {
					if !simple(sc) {
						return
					}
					if n++; length == 6 && n%8 != 0 { // there are too many of these
						return
					}
					runs += every(t, sc, 20, n%3)
				})
			}
			t.Logf("%d stories, %d runs", n, runs)
		})
	}
}

// simple says whether one server at most is split off, and nobody comes in meanwhile.
func simple(sc story) bool {
	off := byte(0)
	for _, word := range sc {
		switch {
		case off != 0 && (word[0] == 'S' || word[0] == 'J'):
			return false
		case word[0] == 'S':
			off = word[1]
		case word[1] == off && strings.IndexByte("HPFKC", word[0]) >= 0:
			off = 0
		}
	}
	return true
}
