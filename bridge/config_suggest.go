package bridge

import (
	"reflect"
	"slices"
	"strings"
)

// suggest says what to do about a key that does not exist: the nearest key of its section, or the section that has it.
func (d *decoder) suggest(key, path string, known []string) string {
	if near := nearest(key, known); near != "" {
		d.typo[join(path, near)] = true
		return "write " + near + " instead"
	}
	if sections := d.known[key]; len(sections) > 0 {
		return "move it to the section " + strings.Join(sections, " or ")
	}
	if len(known) == 0 {
		return "remove it"
	}
	if path == "" {
		path = "the file"
	}
	return "remove it; " + path + " has " + strings.Join(known, ", ")
}

// maxDepth ends the walk through a structure that holds itself.
const maxDepth = 4

// sections tells for every key which sections have it.
func sections(v reflect.Value, path string, into map[string][]string) map[string][]string {
	v = reach(v)
	if v.Kind() != reflect.Struct || isSingle(v) {
		return into
	}
	if strings.Count(path, ".") > maxDepth {
		return into
	}
	for _, f := range fieldsOf(v) {
		if path != "" && !slices.Contains(into[f.name], path) {
			into[f.name] = append(into[f.name], path)
		}
		sections(f.value, join(path, f.name), into)
	}
	return into
}

// nearest returns the name that was probably meant, or nothing: at most a third of its letters may differ.
func nearest(name string, names []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, candidate := range names {
		if n := distance(name, candidate); n < least {
			best, least = candidate, n
		}
	}
	return best
}

// distance counts the letters to put in, take out, change or swap to make b of a.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return 100
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := btoi(a[i-1] != b[j-1])
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
