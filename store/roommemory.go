package store

import (
	"strings"
	"sync"
)

// maxRemembered bounds how many answers are kept. When there are more, the memory begins anew.
const maxRemembered = 8192

// roomMemory has the answers to what is asked before every single event that is sent: is the room encrypted, and is the sender in it. What it has is
// what is committed: a job that changes what is known of a room takes the room out before anything of that can be durable, and until the end of its
// group the database is asked. Any goroutine may call it.
//
// It is for SQLite only, where the lock file keeps all other processes from writing.
type roomMemory struct {
	mu       sync.Mutex
	rooms    map[string]*rememberedRoom
	size     int // answers
	changing map[string]struct{}
	ended    uint64 // groups that have changed a room
}

// rememberedRoom has answers as far as they were asked for.
type rememberedRoom struct {
	encryption *encryption
	members    map[string]string // user: membership, "" when that is not known
}

func (r *rememberedRoom) answers() int {
	if r.encryption != nil {
		return len(r.members) + 1
	}
	return len(r.members)
}

type encryption struct{ encrypted, known bool }

func newRoomMemory() *roomMemory {
	return &roomMemory{rooms: map[string]*rememberedRoom{}, changing: map[string]struct{}{}}
}

// member gives a membership, or what has to be handed to keepMember with the one that is read.
func (m *roomMemory) member(room, user string) (membership string, ok bool, asked uint64) {
	if m == nil {
		return "", false, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rooms[room]; r != nil {
		membership, ok = r.members[user]
	}
	return membership, ok, m.ended
}

func (m *roomMemory) encryption(room string) (e encryption, ok bool, asked uint64) {
	if m == nil {
		return encryption{}, false, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.rooms[room]; r != nil && r.encryption != nil {
		e, ok = *r.encryption, true
	}
	return e, ok, m.ended
}

func (m *roomMemory) keepMember(asked uint64, room, user, membership string) {
	m.keep(asked, room, func(r *rememberedRoom) {
		if r.members == nil {
			r.members = map[string]string{}
		}
		r.members[strings.Clone(user)] = membership // the caller's may be a piece of a whole transaction
	})
}

func (m *roomMemory) keepEncryption(asked uint64, room string, e encryption) {
	m.keep(asked, room, func(r *rememberedRoom) { r.encryption = &e })
}

// keep takes in an answer, unless a change was committed since it was asked for: it may be older than that.
func (m *roomMemory) keep(asked uint64, room string, answer func(r *rememberedRoom)) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, changes := m.changing[room]; changes || asked != m.ended {
		return
	}
	if m.size >= maxRemembered {
		clear(m.rooms)
		m.size = 0
	}
	r := m.rooms[room]
	if r == nil {
		r = &rememberedRoom{}
		m.rooms[strings.Clone(room)] = r
	}
	before := r.answers()
	answer(r)
	m.size += r.answers() - before // two may have asked the same at once
}

// change forgets a room until the group ends, however it does. It is the writer's.
func (m *roomMemory) change(room string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changing[room] = struct{}{}
	if r := m.rooms[room]; r != nil {
		m.size -= r.answers()
		delete(m.rooms, room)
	}
}

// end is called when the group is over. It is the writer's.
func (m *roomMemory) end() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.changing) > 0 {
		clear(m.changing)
		m.ended++
	}
}
