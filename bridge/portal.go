package bridge

import (
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// portal is a Matrix room and the channel that it is plumbed to.
type portal struct {
	Channel string
	Room    id.RoomID
	Source  string // sourceConfig or sourceCommand

	mu    sync.Mutex
	topic string
}

const (
	sourceConfig  = "config"
	sourceCommand = "command"
)

// changeTopic remembers a topic; it is false if the portal has that topic already, so that a topic does not travel in
// circles.
func (p *portal) changeTopic(topic string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.topic == topic {
		return false
	}
	p.topic = topic
	return true
}

func (p *portal) row() *store.Portal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &store.Portal{Channel: p.Channel, Room: string(p.Room), Source: p.Source, Topic: p.topic}
}

// portals finds portals by either end. What is here is what the store holds.
type portals struct {
	mu        sync.RWMutex
	byChannel map[string]*portal
	byRoom    map[id.RoomID]*portal
}

func newPortals() *portals {
	return &portals{byChannel: map[string]*portal{}, byRoom: map[id.RoomID]*portal{}}
}

func (ps *portals) add(p *portal) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.byChannel[p.Channel], ps.byRoom[p.Room] = p, p
}

func (ps *portals) remove(p *portal) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.byChannel, p.Channel)
	delete(ps.byRoom, p.Room)
}

func (ps *portals) channel(name string) *portal {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.byChannel[name]
}

func (ps *portals) room(room id.RoomID) *portal {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.byRoom[room]
}

func (ps *portals) all() []*portal {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	list := make([]*portal, 0, len(ps.byRoom))
	for _, p := range ps.byRoom {
		list = append(list, p)
	}
	return list
}
