package crypto

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
