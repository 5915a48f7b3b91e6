package store

import (
	"fmt"
	"testing"
)

func TestRoomMemory_AnAnswerThatAChangeHasOvertaken_IsNotKept(t *testing.T) {
	m := newRoomMemory()
	_, _, asked := m.member("!a", "@u")
	m.change("!a")
	m.keepMember(asked, "!a", "@u", "leave")
	if _, ok, _ := m.member("!a", "@u"); ok {
		t.Error("it is kept while the room changes")
	}
	m.end()
	m.keepMember(asked, "!a", "@u", "leave")
	if _, ok, _ := m.member("!a", "@u"); ok {
		t.Error("it is kept after the change")
	}
	_, _, asked = m.member("!a", "@u")
	m.keepMember(asked, "!a", "@u", "join")
	if membership, ok, _ := m.member("!a", "@u"); !ok || membership != "join" {
		t.Errorf("what is read afterwards is %q, %v", membership, ok)
	}
}

func TestRoomMemory_ManyRooms_TakeNoMoreThanTheyMay(t *testing.T) {
	m := newRoomMemory()
	answers := func() (n int) {
		for _, r := range m.rooms {
			n += r.answers()
		}
		return n
	}
	most := 0
	for i := range 3 * maxRemembered {
		room, user := fmt.Sprint("!", i/3), fmt.Sprint("@", i)
		_, _, asked := m.member(room, user)
		m.keepMember(asked, room, user, "join")
		m.keepEncryption(asked, room, encryption{known: true}) // for the second and third time the same answer
		if i%1000 == 0 {
			m.change(room)
			m.end()
		}
		if i%50 > 0 {
			continue
		}
		if has := answers(); has > m.size {
			t.Fatalf("it counts %d answers and has %d", m.size, has)
		} else {
			most = max(most, has)
		}
	}
	if most > maxRemembered || most < maxRemembered/2 {
		t.Errorf("it had up to %d answers", most)
	}
}

func TestRoomMemory_TheSameAnswerTwice_CountsOnce(t *testing.T) {
	m := newRoomMemory()
	for range 2 {
		m.keepMember(0, "!a", "@u", "join")
		m.keepEncryption(0, "!a", encryption{})
	}
	if m.size != 2 {
		t.Errorf("two answers count as %d", m.size)
	}
	if m.change("!a"); m.size != 0 {
		t.Errorf("with the room gone there are %d", m.size)
	}
}
