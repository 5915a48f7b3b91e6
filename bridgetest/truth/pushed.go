package truth

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed pushed.txt
var pushed string

//go:embed pushed-few.txt
var pushedFew string

// Pushed is what [Pushes.Record] gives of Synapse 1.160.
func Pushed() string { return pushed }

// PushedFew is what [Pushes.RecordFew] gives of Synapse 1.160 with the experimental features off, legacy authorization on, and
// de.sorunome.msc2409.push_ephemeral in the registration.
func PushedFew() string { return pushedFew }

// PushDifference tells where two records begin to differ; empty when they do not.
func PushDifference(model, real string) string {
	a, b := strings.Split(model, "\n"), strings.Split(real, "\n")
	for i := range max(len(a), len(b)) {
		if i < len(a) && i < len(b) && a[i] == b[i] {
			continue
		}
		title := "the beginning"
		for _, line := range slices.Backward(a[:min(i, len(a))]) {
			if strings.HasPrefix(line, "## ") {
				title = line[3:]
				break
			}
		}
		from := func(lines []string) string {
			return strings.Join(lines[min(i, len(lines)):min(i+6, len(lines))], "\n  ")
		}
		return fmt.Sprintf("in %q, line %d:\nbridgetest:\n  %s\nreally:\n  %s", title, i+1, from(a), from(b))
	}
	return ""
}
