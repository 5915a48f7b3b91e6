package bridge

import (
	"fmt"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// portal is a Matrix room and the channel that it is plumbed to.
type portal struct {
	Channel string
	Room    id.RoomID
	Source  string // sourceConfig, sourceCommand or sourceAlias
	Created time.Time

	mu    sync.Mutex
	topic string
}

const (
	sourceConfig  = "config"
	sourceCommand = "command"
	sourceAlias   = "alias" // somebody has asked for the room by its address
)

// currentTopic is the channel's topic as the network has it, so that a topic does not travel in circles.
func (p *portal) currentTopic() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.topic
}

func (p *portal) setTopic(topic string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.topic = topic
}

func (p *portal) row() *store.Portal {
	return &store.Portal{Channel: p.Channel, Room: string(p.Room), Source: p.Source, Topic: p.currentTopic(), Created: p.Created}
}

// portals finds portals by either end. A channel has one room, and a room one channel.
type portals struct {
	mu        sync.RWMutex
	byChannel map[string]*portal
	byRoom    map[id.RoomID]*portal
}

func newPortals() *portals {
	return &portals{byChannel: map[string]*portal{}, byRoom: map[id.RoomID]*portal{}}
}

// claim makes a portal known, unless its room or its channel belongs to another one. fresh is false when just this
// portal was there already; it is returned then.
func (ps *portals) claim(p *portal) (known *portal, fresh bool, err error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	byRoom, byChannel := ps.byRoom[p.Room], ps.byChannel[p.Channel]
	switch {
	case byRoom != nil && byRoom == byChannel:
		return byRoom, false, nil
	case byRoom != nil:
		return nil, false, refuse("This room is connected to %s already.", byRoom.Channel)
	case byChannel != nil:
		return nil, false, refuse("%s is connected to another room already.", p.Channel)
	}
	ps.byChannel[p.Channel], ps.byRoom[p.Room] = p, p
	return p, true, nil
}

// remove forgets this portal, and no other one that has taken its place.
func (ps *portals) remove(p *portal) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.byChannel[p.Channel] == p {
		delete(ps.byChannel, p.Channel)
	}
	if ps.byRoom[p.Room] == p {
		delete(ps.byRoom, p.Room)
	}
}

// has says whether the portal is (still) there.
func (ps *portals) has(p *portal) bool { return ps.channel(p.Channel) == p }

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

// plumbRefusal is why a room and a channel cannot be connected, in words for the person who asked.
type plumbRefusal struct{ text string }

func (e *plumbRefusal) Error() string { return e.text }

func refuse(format string, args ...any) error { return &plumbRefusal{fmt.Sprintf(format, args...)} }
