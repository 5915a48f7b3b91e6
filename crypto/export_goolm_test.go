//go:build goolm

package crypto

import "time"

// Machines is how many machines are in memory.
func Machines(c *Crypto) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.machines)
}

// Unload forgets the machines that were not used since then.
func Unload(c *Crypto, since time.Time) { c.unload(since) }
