//go:build !failpoints

package failpoint

// On says whether there are failpoints in this program. It is a constant: what stands behind it is not compiled.
const On = false

// Before is passed when a step is about to be taken.
func Before(string) {}

// After is passed when a step has been taken.
func After(string) {}

// Fails is asked instead of taking a step that may fail.
func Fails(string) error { return nil }
