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

// ProbeOften makes it be found out fast what transactions bring.
func ProbeOften(o *Options) { o.probing = &probing{200 * time.Millisecond, time.Hour} }
