package bridge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong with a configuration, and how to mend it. It never holds a secret.
type Mistake struct {
	File string // the configuration file
	Line int    // from 1; 0 when the mistake is not in the file
	Env  string // the environment variable that holds the mistake, or empty
	Path string // dotted, list elements by index: "bridge.plumb.0.room"
	Text string // what is wrong
	Mend string // what to do, as an instruction: "write a port from 1 to 65535"
}

// String gives the mistake as `FILE:LINE: path: what is wrong; what to write instead`.
func (m Mistake) String() string {
	var b strings.Builder
	switch {
	case m.Env != "":
		fmt.Fprintf(&b, "environment variable %s: ", m.Env)
	case m.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", m.File, m.Line)
	case m.File != "":
		fmt.Fprintf(&b, "%s: ", m.File)
	}
	if m.Path != "" {
		b.WriteString(m.Path + ": ")
	}
	b.WriteString(m.Text)
	if m.Mend != "" {
		b.WriteString("; " + m.Mend)
	}
	return b.String()
}

// ConfigError is everything that is wrong with a configuration, in the order of the file's lines, the environment last.
type ConfigError struct {
	Mistakes []Mistake

	misspelt []string // paths that are probably meant by keys that do not exist
}

// Error gives one mistake on each line.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Mistakes))
	for i, m := range e.Mistakes {
		lines[i] = m.String()
	}
	return strings.Join(lines, "\n")
}

// concerns says whether a setting has a mistake, is misspelt, or is part of a section that has or is.
func (e *ConfigError) concerns(path string) bool {
	within := func(section string) bool {
		return path == section || section != "" && strings.HasPrefix(path, section+".")
	}
	return slices.ContainsFunc(e.Mistakes, func(m Mistake) bool {
		return m.Path == "" && m.Env == "" || within(m.Path)
	}) || slices.ContainsFunc(e.misspelt, within)
}

func sortMistakes(list []Mistake) {
	slices.SortStableFunc(list, func(a, b Mistake) int {
		return cmp.Or(
			cmp.Compare(btoi(a.Env != ""), btoi(b.Env != "")),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Env, b.Env),
			cmp.Compare(a.Path, b.Path),
		)
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
