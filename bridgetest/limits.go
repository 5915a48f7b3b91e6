package bridgetest

import "time"

// Rate is a limit as Synapse has it: Burst at once, and PerSecond in the long run. The zero Rate is no limit.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Limits are the rates of a homeserver. They hold for each ghost, with a bucket of its own, of appservices whose
// registration has rate_limited: true; the appservice's sender is exempt, and so are people, who are the test's own hands.
type Limits struct {
	Messages Rate // messages, redactions, state and new rooms together (rc_message)
	Joins    Rate // rc_joins.local
	// JoinsByRoom holds for one room and all who come into it; people count, and are not refused (rc_joins_per_room). A join that
	// it refuses counts for Joins.
	JoinsByRoom Rate
	Logins      Rate // of one account (rc_login.account)
	// LoginsByAddress holds for all ghosts of an appservice together, which come from one address (rc_login.address).
	LoginsByAddress Rate
}

// TightLimits are so low that a test of a few requests meets each of them.
func TightLimits() Limits {
	return Limits{
		Messages: Rate{0.5, 2}, Joins: Rate{0.1, 2}, Logins: Rate{0.003, 2}, LoginsByAddress: Rate{0.003, 2},
	}
}

type bucketID struct{ kind, owner string }

// spend takes one of what an owner may do, or refuses with the time until there is one again. What is refused costs nothing.
func (hs *Homeserver) spend(rate Rate, kind, owner string) error {
	if err := hs.allows(rate, kind, owner); err != nil {
		return err
	}
	hs.count(rate, kind, owner)
	return nil
}

// allows is spend that takes nothing.
func (hs *Homeserver) allows(rate Rate, kind, owner string) error {
	if rate.PerSecond <= 0 {
		return nil
	}
	wait := hs.full(kind, owner).Add(-rate.each() * time.Duration(rate.Burst-1)).Sub(hs.opts.Clock.Now())
	if wait <= 0 {
		return nil
	}
	return limited((wait + time.Millisecond - 1).Truncate(time.Millisecond))
}

// count takes one, whether there is one or not.
func (hs *Homeserver) count(rate Rate, kind, owner string) {
	if rate.PerSecond > 0 {
		hs.buckets[bucketID{kind, owner}] = hs.full(kind, owner).Add(rate.each())
	}
}

// full is when everything that was spent will have come back.
func (hs *Homeserver) full(kind, owner string) time.Time {
	full, now := hs.buckets[bucketID{kind, owner}], hs.opts.Clock.Now()
	if full.Before(now) {
		return now
	}
	return full
}

func (r Rate) each() time.Duration { return time.Duration(float64(time.Second) / r.PerSecond) }

// limitedGhost tells whether limits hold for who makes a request.
func (who identity) limitedGhost() bool {
	return who.service != nil && who.service.reg.RateLimited && who.account != nil && who.account != who.service.sender
}

func (hs *Homeserver) limitMessages(c *call) error {
	if !c.who.limitedGhost() {
		return nil
	}
	return hs.spend(hs.opts.Limits.Messages, "messages", c.user())
}

func (hs *Homeserver) limitJoins(c *call, r *room) error {
	if !c.who.limitedGhost() {
		return nil
	}
	if err := hs.spend(hs.opts.Limits.Joins, "joins", c.user()); err != nil {
		return err
	}
	return hs.allows(hs.opts.Limits.JoinsByRoom, roomJoins, r.id)
}

// roomJoins is the kind of bucket that fills with joins of anybody; see emit.
const roomJoins = "joins of a room"

func (hs *Homeserver) limitLogins(as *appService, acc *account) error {
	if !(identity{account: acc, service: as}).limitedGhost() {
		return nil
	}
	if err := hs.spend(hs.opts.Limits.LoginsByAddress, "logins by address", as.reg.ID); err != nil {
		return err
	}
	return hs.spend(hs.opts.Limits.Logins, "logins", acc.id)
}
