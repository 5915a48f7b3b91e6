package irc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
)

// This file reads one stream of a server with several sessions, each at a speed of its own, in every order there is, or in many of them. Whatever the
// order: each line that one of them has read is delivered once, and as the server had it.

// A story is what the server shows, one word for each event: J joins, P parts, F is made to part, K is kicked, C has its link cut, and the session
// follows, r for the relay, a and b for logins. "o" is somebody else who comes or goes. After each there is a line.
type story []string

// item is what one session reads.
type item struct {
	kind  string // joined, names, ours, line, other, out, end
	ours  []byte
	sight sight
	at    int // the line's number
	in    bool
	who   byte
	life  int
}

type reader struct {
	s       *session
	items   []item
	read    int
	entered int
	ended   int // how many lives are over for itself
	inside  bool
	members map[byte]bool
}

type model struct {
	c         *crew
	readers   map[byte]*reader
	order     []byte
	story     story
	on        int // how much of it the server has done
	inside    map[byte]bool
	lives     map[byte]int
	other     bool // it is in the channel
	barred    bool
	tail      func() int // how much of what a cut link had to read it never does
	want      []int
	covered   map[int]bool
	got       []int
	delivered map[byte]bool // who is there, as delivered
}

func newModel(sc story, tail func() int) *model {
	m := &model{
		c: newCrew(nil), readers: map[byte]*reader{}, story: sc, inside: map[byte]bool{}, lives: map[byte]int{}, tail: tail, covered: map[int]bool{},
		delivered: map[byte]bool{},
	}
	for _, word := range sc {
		if id := word[len(word)-1]; id != 'o' && m.readers[id] == nil {
			login := bridge.RelayLogin
			if id != 'r' {
				login = "@" + string(id) + ":x"
			}
			m.readers[id] = &reader{s: &session{config: *testConfig("x:1"), login: login}}
			m.order = append(m.order, id)
		}
	}
	return m
}

func (m *model) show(but byte, it item) {
	for id := range m.inside {
		if id != but {
			m.readers[id].items = append(m.readers[id].items, it)
		}
	}
}

// can says whether the server can do the next word: who comes back has read the end of its life before that, or has asked for both in one breath.
func (m *model) can() bool {
	if m.on == len(m.story) {
		return false
	}
	word := m.story[m.on]
	id := word[len(word)-1]
	r := m.readers[id]
	switch word[0] {
	case 'J':
		for other, r := range m.readers {
			if !m.inside[other] && r.entered < m.lives[other] && r.ended < m.lives[other] {
				return false
			}
		}
		return r.ended == m.lives[id]
	case 'P':
		return r.inside && r.ended == m.lives[id]-1
	}
	return true
}

func (m *model) serve() {
	word := m.story[m.on]
	m.on++
	id := word[len(word)-1]
	r := m.readers[id]
	switch word[0] {
	case 'o':
		m.other = !m.other
		in := bridge.Incoming{Channel: "#c", ID: fmt.Sprint("o", m.on), Sender: bridge.RemoteUser{ID: "other"}, Join: &bridge.Join{}}
		if !m.other {
			in.Join, in.Leave = nil, &bridge.Leave{}
		}
		m.show(0, item{kind: "other", sight: sightOf(&in), in: m.other})
	case 'J':
		m.c.awaits(r.s, "#c")
		m.show(id, item{kind: "ours", sight: sightOfOurs(r.s, string(id), true)})
		there := item{kind: "names", ours: slices.Sorted(maps.Keys(m.inside)), in: m.other}
		m.inside[id] = true
		m.lives[id]++
		r.items = append(r.items, item{kind: "joined", who: id, life: m.lives[id]}, there)
		if id == 'r' {
			m.barred = false
		}
	default:
		sg := sightOfOurs(r.s, string(id), false)
		delete(m.inside, id)
		switch word[0] {
		case 'P':
			m.c.parts(r.s, "#c")
			sg.parted = true
		case 'F':
			sg.parted = true
		case 'K':
			sg.barred = true
		}
		m.show(id, item{kind: "ours", sight: sg})
		if id == 'r' && (word[0] == 'K' || word[0] == 'F') {
			m.barred = true
		}
		own := item{kind: "out", sight: sg}
		own.sight.barred = word[0] == 'K' || word[0] == 'F'
		if word[0] == 'C' {
			own.kind = "end"
			kept := len(r.items) - m.tail()
			if id == 'r' { // that it was let in again it must know
				kept = max(kept, 1+slices.IndexFunc(r.items, func(it item) bool { return it.kind == "joined" && it.life == m.lives[id] }))
			}
			r.items = r.items[:max(r.read, kept)]
		}
		r.items = append(r.items, own)
	}
	in := bridge.Incoming{Channel: "#c", Sender: bridge.RemoteUser{ID: "other"}, Text: &bridge.Text{Kind: bridge.KindText, Body: fmt.Sprint(m.on)}}
	m.show(0, item{kind: "line", sight: sightOf(&in), at: m.on})
	if !m.barred {
		m.want = append(m.want, m.on)
	}
}

func (m *model) step(id byte) {
	r := m.readers[id]
	it := r.items[r.read]
	r.read++
	switch it.kind {
	case "joined":
		m.c.enters(r.s, "#c", string(it.who))
		r.entered++
		r.members = map[byte]bool{}
	case "names":
		var ours []*session
		for _, other := range it.ours {
			ours = append(ours, m.readers[other].s)
		}
		r.members, r.inside = map[byte]bool{'o': it.in}, true
		m.c.counts(r.s, "#c", ours)
	case "ours":
		m.c.sees(r.s, "#c", it.sight)
	case "other":
		r.members['o'] = it.in
		m.c.sees(r.s, "#c", it.sight)
	case "line":
		m.covered[it.at] = true
		m.c.sees(r.s, "#c", it.sight)
	case "out":
		r.ended, r.inside = r.ended+1, false
		m.c.leaves(r.s, "#c", leaving{read: &it.sight, barred: it.sight.barred})
	case "end":
		r.ended, r.inside = r.ended+1, false
		m.c.leaves(r.s, "#c", leaving{})
	}
}

// looks is what a session does that is to look for what nobody has seen, of which there is nothing here.
func (m *model) looks() bool {
	w := m.c.channels["#c"]
	if w == nil || w.by == nil {
		return false
	}
	for _, r := range m.readers {
		if r.s == w.by && m.c.missing(r.s, "#c") {
			in := bridge.Incoming{Channel: "#c", Members: &bridge.Members{}}
			if r.members['o'] {
				in.Members.Users = append(in.Members.Users, bridge.RemoteUser{ID: "other"})
			}
			m.c.goesOn(r.s, in)
			return true
		}
	}
	return false
}

func (m *model) collect() {
	w := m.c.channels["#c"]
	if w == nil {
		return
	}
	for _, in := range w.ready {
		switch {
		case in.Text != nil:
			var n int
			_, _ = fmt.Sscan(in.Text.Body, &n)
			m.got = append(m.got, n)
		case in.Members != nil:
			m.delivered['o'] = len(in.Members.Users) > 0
		default:
			m.delivered['o'] = in.Join != nil
		}
	}
	w.ready = nil
	m.c.tidy("#c", w)
}

// choices are what can happen next: a session reads on, or the server does.
func (m *model) choices() (ids []byte) {
	for _, id := range m.order {
		if r := m.readers[id]; r.read < len(r.items) {
			ids = append(ids, id)
		}
	}
	return ids
}

// run does it in the order that choose says, and returns what is wrong with the outcome.
func (m *model) run(choose func(n int) int, lazy bool) (steps string, err error) {
	for {
		var choices []byte
		if m.can() && lazy {
			choices = append(choices, '.')
		}
		for !lazy && m.can() {
			m.serve()
		}
		choices = append(choices, m.choices()...)
		if w := m.c.channels["#c"]; lazy && w != nil && w.waits && !w.fetching {
			choices = append(choices, '?')
		}
		if len(choices) == 0 {
			break
		}
		id := choices[0]
		if len(choices) > 1 {
			id = choices[choose(len(choices))]
		}
		steps += string(id)
		switch id {
		case '.':
			m.serve()
		case '?':
			if !m.looks() && len(choices) == 1 {
				return steps, fmt.Errorf("nobody looks for what is missing")
			}
		default:
			m.step(id)
		}
		if !lazy {
			m.looks()
		}
		m.collect()
	}
	if m.on < len(m.story) {
		return steps, fmt.Errorf("the story cannot go on")
	}
	var want []int
	for _, n := range m.want {
		if m.covered[n] {
			want = append(want, n)
		}
	}
	if !slices.Equal(m.got, want) {
		return steps, fmt.Errorf("delivered were %v, want %v", m.got, want)
	}
	if len(m.inside) > 0 && !m.barred && m.delivered['o'] != m.other {
		return steps, fmt.Errorf("that the other is there was delivered as %v", m.delivered['o'])
	}
	w := m.c.channels["#c"]
	switch {
	case w == nil:
	case w.waits || len(w.pending) > 0:
		return steps, fmt.Errorf("something waits still: %v", w.pending)
	case len(m.inside) == 0 && !w.out && !w.barred:
		return steps, fmt.Errorf("the channel is not forgotten")
	}
	return steps, nil
}

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

// stories are all of so many words.
func stories(ids string, n int, do func(story)) {
	inside := map[byte]bool{}
	var sc story
	var grow func()
	grow = func() {
		if len(sc) == n {
			do(slices.Clone(sc))
			return
		}
		for i := range len(ids) {
			id := ids[i]
			kinds := "PKFC"
			if !inside[id] {
				kinds = "J"
			}
			for _, kind := range kinds {
				inside[id] = !inside[id]
				sc = append(sc, string(kind)+string(id))
				grow()
				sc = sc[:len(sc)-1]
				inside[id] = !inside[id]
			}
		}
	}
	grow()
}

func TestWatch_TwoSessionsReadAtAnySpeed_EachLineIsDeliveredOnceAndInOrder(t *testing.T) {
	runs, n := 0, 0
	for length := 2; length <= 4; length++ {
		stories("ra", length, func(sc story) {
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
		inside := map[byte]bool{}
		var sc story
		for range 4 + rng.IntN(8) {
			id := "rabo"[rng.IntN(4)]
			kind := "J"
			switch {
			case id == 'o':
				kind = ""
			case inside[id]:
				kind = string("PKFCCC"[rng.IntN(6)])
			}
			inside[id] = !inside[id]
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
