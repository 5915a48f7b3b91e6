package irc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trestle-bridge/trestle/bridge"
)

// This file reads one stream of a server with several sessions, each at a speed of its own, in every order there is, or in many of them. Whatever the
// order: each line that one of them has read is delivered once, and as the server had it.

// A story is what the server shows, one word for each event: J joins, P parts, F is made to part, K is kicked, C has its link cut, N has another nick, S is
// on a server that splits off, and H on one that comes back, D joins and is not shown, X is shown at last; and the session follows, r for the relay, a and b
// for logins. "o" is somebody else who comes or goes. After each there is a line, on either side of a split.
type story []string

const far = 1000 // from here on lines are of a far side: of the first split, and so on

// item is what one session reads.
type item struct {
	kind  string // joined, names, ours, line, other, out, end
	nick  string
	ours  []byte
	sight sight
	at    int // the line's number
	in    bool
	life  int
}

type reader struct {
	s       *session
	items   []item
	read    int
	rare    int // so far it must have read before somebody comes or goes
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
	nicks     map[byte]string
	hidden    map[byte]bool
	far       map[byte]bool
	splits    int
	ids       bool         // lines have IDs
	apart     map[int]bool // lines that only one side has seen
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
		delivered: map[byte]bool{}, nicks: map[byte]string{}, hidden: map[byte]bool{}, far: map[byte]bool{}, apart: map[int]bool{},
	}
	for _, word := range sc {
		m.ids = m.ids || word[0] == 'D'
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

// show shows a side something, but for one.
func (m *model) show(far bool, but byte, it item) {
	for id := range m.inside {
		if id != but && m.far[id] == far {
			m.readers[id].items = append(m.readers[id].items, it)
		}
	}
}

// shows has everybody else on its side see what one of ours does, unless it is hidden.
func (m *model) shows(id byte, sg sight) {
	if !m.hidden[id] {
		m.show(m.far[id], id, item{kind: "ours", sight: sg})
	}
}

// splits off, or comes back: it goes for all others, and they for it.
func (m *model) split(id byte, off bool) {
	r := m.readers[id]
	if m.other && !off { // before ours: else who leaves at once may be taken for there
		r.items = append(r.items, m.others(true))
	}
	for _, other := range m.order {
		if other == id || !m.inside[other] || m.far[other] {
			continue
		}
		o := m.readers[other]
		o.items = append(o.items, item{kind: "ours", sight: sightOfOurs(r.s, m.nicks[id], !off)})
		r.items = append(r.items, item{kind: "ours", sight: sightOfOurs(o.s, m.nicks[other], !off)})
	}
	if m.other && off {
		r.items = append(r.items, m.others(false))
	}
	if m.far[id] = off; off {
		m.splits++
	} else {
		delete(m.far, id)
	}
}

func (m *model) others(come bool) item {
	in := bridge.Incoming{Channel: "#c", ID: fmt.Sprint("o", m.on, come), Sender: bridge.RemoteUser{ID: "other"}, Join: &bridge.Join{}}
	if !come {
		in.Join, in.Leave = nil, &bridge.Leave{}
	}
	return item{kind: "other", sight: sightOf(&in), in: come}
}

// can says whether the server can do the next word: who comes back has read the end of its life before that, or has asked for both in one breath. After a split
// and a JOIN that is hidden all have read so far before a session comes or goes, and, when the relay is gone for good, before anything else: sooner nobody can
// know what was before what.
func (m *model) can() bool {
	if m.on == len(m.story) {
		return false
	}
	word := m.story[m.on]
	id := word[len(word)-1]
	r := m.readers[id]
	for _, r := range m.readers {
		if strings.IndexByte("JDPFKCS", word[0]) >= 0 && r.read < r.rare || m.barred && m.splits > 0 && r.read < len(r.items) {
			return false
		}
	}
	switch word[0] {
	case 'J', 'D':
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
		m.show(false, 0, m.others(m.other))
	case 'J', 'D':
		m.c.awaits(r.s, "#c")
		m.nicks[id], m.hidden[id] = string(id), word[0] == 'D'
		m.shows(id, sightOfOurs(r.s, m.nicks[id], true))
		there := item{kind: "names", in: m.other}
		for _, other := range slices.Sorted(maps.Keys(m.inside)) {
			if !m.hidden[other] && !m.far[other] {
				there.ours = append(there.ours, other)
			}
		}
		m.inside[id] = true
		m.lives[id]++
		r.items = append(r.items, item{kind: "joined", nick: m.nicks[id], life: m.lives[id]}, there)
		if id == 'r' {
			m.barred = false
		}
	case 'X':
		m.hidden[id] = false
		m.shows(id, sightOfOurs(r.s, m.nicks[id], true))
	case 'N':
		sg := sightOfOurNick(r.s, m.nicks[id], m.nicks[id]+"'")
		m.nicks[id] += "'"
		m.shows(id, sg)
		r.items = append(r.items, item{kind: "ours", sight: sg})
	case 'S', 'H':
		m.split(id, word[0] == 'S')
	default:
		sg := sightOfOurs(r.s, m.nicks[id], false)
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
		m.shows(id, sg)
		m.hidden[id] = false
		delete(m.far, id)
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
	if strings.IndexByte("SHDX", word[0]) >= 0 {
		for _, r := range m.readers {
			r.rare = len(r.items)
		}
	}
	split := len(m.far) > 0
	m.line(m.on, false, split)
	if split {
		m.line(m.splits*far+m.on, true, true)
	}
}

func (m *model) line(n int, side, apart bool) {
	in := bridge.Incoming{Channel: "#c", Sender: bridge.RemoteUser{ID: "other"}, Text: &bridge.Text{Kind: bridge.KindText, Body: fmt.Sprint(n)}}
	if m.ids {
		in.ID = fmt.Sprint(n)
	}
	m.show(side, 0, item{kind: "line", sight: sightOf(&in), at: n})
	m.apart[n] = apart
	if !m.barred || side { // the far side does not know that the relay was shown the door
		m.want = append(m.want, n)
	}
}

func (m *model) step(id byte) {
	r := m.readers[id]
	it := r.items[r.read]
	r.read++
	switch it.kind {
	case "joined":
		m.c.enters(r.s, "#c", it.nick)
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
			if !m.ids || !slices.Contains(m.got, n) { // by its ID the bridge knows what it has
				m.got = append(m.got, n)
			}
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

// passes lets so much time pass that nobody waits any more for who may be on another side of a split. It says whether somebody has.
func (m *model) passes() (any bool) {
	w := m.c.channels["#c"]
	if w == nil {
		return false
	}
	for _, st := range w.seats {
		if st.doubts() {
			any, st.since = true, st.since.Add(-asideAfter)
		}
	}
	m.c.aside("#c")
	return any
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
		if len(choices) == 0 && m.passes() {
			steps += "+"
			if !lazy {
				m.looks()
			}
			m.collect()
			continue
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
	if err := m.once(); err != nil {
		return steps, err
	}
	if len(m.inside) > 0 && len(m.far) == 0 && !m.barred && m.delivered['o'] != m.other {
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

// once: each line is there once, what all could see in order, and what only the side of a split saw in the order of that side. Of three sessions one may wait for the
// end of a split, which does not come here, when it has not read of the one before.
func (m *model) once() error {
	pick := func(all []int, is func(n int) bool) (list []int) {
		for _, n := range all {
			if is(n) {
				list = append(list, n)
			}
		}
		return list
	}
	sure := m.splits < 2 || len(m.readers) == 2
	for side := range m.splits + 1 {
		for _, apart := range []bool{false, true} {
			of := func(n int) bool { return n/far == side && m.apart[n] == apart }
			got := pick(m.got, of)
			want := pick(m.want, func(n int) bool { return of(n) && m.covered[n] && (!apart || sure || slices.Contains(got, n)) })
			if !slices.Equal(got, want) {
				return fmt.Errorf("delivered were %v, and so %v, want %v", m.got, got, want)
			}
		}
	}
	return nil
}

// usual is what can happen to who is out, and to who is in.
var usual = map[byte]string{0: "J", 'J': "PKFC"}
