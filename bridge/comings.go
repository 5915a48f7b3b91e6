package bridge

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/lanes"
	"github.com/trestle-bridge/trestle/store"
)

// This file keeps a crowd that comes or goes from holding up what is said. A room has one lane for what is said and done in
// it, lists of members included, and every ghost has a lane of its own for its coming and going in that room. Of the order
// in which all that was stored, this is kept:
//
//   - what is said in a room keeps its order, and so does what one ghost does: it comes before it says something that was
//     stored later, and goes after its last words;
//   - nobody comes or goes before what was stored earlier was said, by whomever: a row of a ghost's lane is kept back until then.
//
// So a message waits for its own ghost's rows, which then come first, and for nobody else's. Rows wait only for rows that were
// stored earlier, or take the place of such a one: they cannot wait for each other.

// comingWorkers is how many ghosts come and go at once, in all rooms. A homeserver lets them into one room one by one, and
// what is said by somebody new has to stand in that line.
const comingWorkers = 8

// comingLane is the lane of a ghost's coming and going in a room. Neither ID has a space.
func comingLane(room id.RoomID, ghost id.UserID) string { return string(room) + " " + string(ghost) }

// listedLane is the same in the store, of a row that takes the place of another: of a list of members, after which something
// may have been said already.
func listedLane(room id.RoomID, ghost id.UserID, place int64) string {
	return comingLane(room, ghost) + " " + strconv.FormatInt(place, 10)
}

// ofLane takes a lane apart; ghost is "" for the lane of a room, and place is 0 for a row that takes its own.
func ofLane(lane string) (room string, ghost id.UserID, place int64) {
	room, rest, _ := strings.Cut(lane, " ")
	user, text, _ := strings.Cut(rest, " ")
	place, _ = strconv.ParseInt(text, 10, 64)
	return room, id.UserID(user), place
}

// laneOf is the lane in which a row of the store waits.
func laneOf(lane string) string {
	if room, ghost, place := ofLane(lane); place > 0 {
		return comingLane(id.RoomID(room), ghost)
	}
	return lane
}

// comings knows what waits in the outbox as far as its order needs that.
type comings struct {
	rooms, ghosts *lanes.Lanes[int64]

	mu     sync.Mutex
	begun  bool              // rows are given to their lanes
	said   map[string]int64  // by room: the last row of its lane that is not over
	crowds map[string]*crowd // by room: who has rows
}

// crowd is who comes and goes in a room.
type crowd struct {
	rows   map[id.UserID][]coming // those of each ghost's lane, in order; also what is being committed
	kept   []keptBack             // in order
	wanted id.UserID              // the room's lane waits for a row of this ghost
	until  time.Time              // the homeserver lets nobody in before
}

// coming is a row of a ghost's lane, and the place that it has among what is said in the room.
type coming struct{ row, place int64 }

// keptBack is a row that waits for what is said before it.
type keptBack struct {
	lane       string
	row, after int64
}

func newComings(rooms, ghosts *lanes.Lanes[int64]) *comings {
	return &comings{rooms: rooms, ghosts: ghosts, said: map[string]int64{}, crowds: map[string]*crowd{}}
}

// schedule hands a row to its lane once the commit holds.
func (c *comings) schedule(tx *store.Tx, lane string, row int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		return // it is found with all that waits
	}
	if _, ghost, _ := ofLane(lane); ghost != "" {
		c.expect(lane, row)
		tx.OnRollback(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.forget(lane, row)
		})
	}
	tx.AfterCommit(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.add(lane, row)
	})
}

// begin lets rows be given to their lanes from now on. found is called for those that are in the store, in order.
func (c *comings) begin() (found func(lane string, row int64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = true
	return func(lane string, row int64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, ghost, _ := ofLane(lane); ghost != "" {
			c.expect(lane, row)
		}
		c.add(lane, row)
	}
}

func (c *comings) expect(lane string, row int64) {
	room, ghost, place := ofLane(lane)
	if place == 0 {
		place = row
	}
	of := c.crowds[room]
	if of == nil {
		of = &crowd{rows: map[id.UserID][]coming{}}
		c.crowds[room] = of
	}
	of.rows[ghost] = append(of.rows[ghost], coming{row, place})
}

func (c *comings) forget(lane string, row int64) {
	room, ghost, _ := ofLane(lane)
	of := c.crowds[room]
	if of == nil {
		return
	}
	of.rows[ghost] = slices.DeleteFunc(of.rows[ghost], func(one coming) bool { return one.row == row })
	if len(of.rows[ghost]) == 0 {
		delete(of.rows, ghost)
	}
	if len(of.rows) == 0 {
		delete(c.crowds, room)
	}
}

func (c *comings) add(lane string, row int64) {
	room, ghost, place := ofLane(lane)
	if ghost == "" {
		c.said[lane] = row
		c.rooms.Add(lane, row)
		return
	}
	lane = laneOf(lane)
	if last, more := c.said[room]; more && place == 0 { // what was said before the place of another is over
		of := c.crowds[room]
		of.kept = append(of.kept, keptBack{lane, row, last})
		return
	}
	c.ghosts.Add(lane, row)
}

// over notes that a row has left the outbox, and lets go what waited for that.
func (c *comings) over(lane string, row int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room, ghost, _ := ofLane(lane)
	of := c.crowds[room]
	if ghost != "" {
		if of != nil && of.wanted == ghost {
			of.wanted = ""
			c.rooms.Wake(room)
		}
		c.forget(lane, row)
		return
	}
	if c.said[lane] == row {
		delete(c.said, lane)
	}
	for of != nil && len(of.kept) > 0 && of.kept[0].after <= row {
		c.ghosts.Add(of.kept[0].lane, of.kept[0].row)
		of.kept = of.kept[1:]
	}
}

// wait says whether a row of a room's lane has to wait for earlier ones of a ghost's, which then come before those of all
// others. The room's lane is woken.
func (c *comings) wait(room id.RoomID, ghost id.UserID, row int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.crowds[string(room)]
	if of == nil || len(of.rows[ghost]) == 0 || of.rows[ghost][0].place > row {
		return false
	}
	of.wanted = ghost
	c.ghosts.Hurry(comingLane(room, ghost))
	return true
}

// hold keeps everybody from coming and going for a while: the homeserver may mean all who want to come in when it asks one
// to wait. Otherwise each would ask for itself.
func (c *comings) hold(lane string, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room, _, _ := ofLane(lane)
	if of := c.crowds[room]; of != nil {
		of.until = time.Now().Add(wait)
	}
}

// held gives how long a ghost's lane has to wait because of that.
func (c *comings) held(lane string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	room, _, _ := ofLane(lane)
	if of := c.crowds[room]; of != nil && !of.until.IsZero() {
		return time.Until(of.until)
	}
	return 0
}

// moving gives whose rows are in the outbox.
func (c *comings) moving(room id.RoomID) map[id.UserID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[id.UserID]bool{}
	if of := c.crowds[string(room)]; of != nil {
		for ghost := range of.rows {
			all[ghost] = true
		}
	}
	return all
}

// movesAfter says whether a ghost has a row that was stored after another.
func (c *comings) movesAfter(room id.RoomID, ghost id.UserID, row int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	of := c.crowds[string(room)]
	if of == nil || len(of.rows[ghost]) == 0 {
		return false
	}
	rows := of.rows[ghost]
	return rows[len(rows)-1].place > row
}
