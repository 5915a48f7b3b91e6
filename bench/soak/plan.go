package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// points are the failpoints at which the bridge is killed. POST createRoom is not among them: rooms_test.go kills there.
var points = []string{
	"before commit", "after commit", "before 200", "after 200", "before PUT send", "after PUT send", "before irc write", "after irc write",
	"before PUT devices", "after PUT devices", "before POST register", "after POST register", "before POST join", "after POST join",
}

// sealing are those of encryption.
var sealing = []string{"before seal", "after seal"}

func (o *Options) points() []string {
	if o.Encryption == "" {
		return points
	}
	return slices.Concat(sealing, points)
}

// plan says how one process of the bridge ends.
type plan struct {
	point string        // the failpoint, unless it is empty
	n     int           // at its n-th passing
	wait  time.Duration // without a failpoint: so long after the start, or after the channels were entered
	late  bool          // the latter
	clean bool          // no kill, but SIGTERM
	heard bool          // first it takes in something from IRC, however busy the machine is

	restart bool // of the homeserver, meanwhile
}

func (p plan) String() string {
	switch {
	case p.clean:
		return "SIGTERM"
	case p.point != "" && p.heard:
		return fmt.Sprintf("%s:%d, once something from IRC is on Matrix", p.point, p.n)
	case p.point != "":
		return fmt.Sprintf("%s:%d", p.point, p.n)
	case p.heard:
		return fmt.Sprintf("%v after something from IRC was on Matrix", p.wait)
	case p.late:
		return fmt.Sprintf("%v after entering", p.wait)
	}
	return fmt.Sprintf("%v after the start", p.wait)
}

// newPlan makes the plan of the i-th kill: each failpoint comes once in a while, and one kill of three is at any time. Half of each kind wait for IRC: most
// processes on a busy machine would be killed before they had taken anything in from there, and the way to Matrix would hardly be tried.
func newPlan(rng *rand.Rand, points []string, i int) plan {
	heard := (i-i%3)/3%2 == 0
	if i%3 == 2 {
		return plan{wait: time.Duration(rng.IntN(600)) * time.Millisecond, late: rng.IntN(3) > 0, heard: heard}
	}
	p := plan{point: points[(i-i/3)%len(points)], n: 1, heard: i%2 == 0}
	most := 12
	switch p.point {
	case "before commit", "after commit": // a start alone has some
		most = 60
	case "before seal", "after seal":
		most = 6
	case "before PUT devices", "after PUT devices", "before POST register", "after POST register", "before POST join", "after POST join":
		most = 2 // only who is new is registered, joins and gets a device
	}
	p.n += rng.IntN(most)
	return p
}
