package crypto

import "time"

// SyncMode says whether devices ask for their keys with /sync.
type SyncMode string

const (
	// SyncAuto finds out whether transactions bring to-device messages and key counts, and asks with /sync where they do not.
	SyncAuto SyncMode = ""
	// SyncAlways asks whatever transactions bring.
	SyncAlways SyncMode = "always"
	// SyncNever relies on transactions alone.
	SyncNever SyncMode = "never"
)

// probing is how it is found out what transactions bring.
type probing struct {
	// wait is how long a message of a device to itself may take to come with a transaction.
	wait time.Duration
	// again is how long after one in vain the next is sent; each later one takes twice as long, up to syncSweep.
	again time.Duration
}
