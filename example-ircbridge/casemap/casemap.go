package casemap

import "strings"

// Mapping is a way to fold case. The zero value is RFC 1459's, which holds where a server does not say.
type Mapping struct {
	last byte // the highest byte that is an upper-case letter; 0 stands for '^'
	wide bool // other letters fold as well
}

// The mappings.
var (
	RFC1459       = Mapping{}
	StrictRFC1459 = Mapping{last: ']'} // '^' and '~' differ
	ASCII         = Mapping{last: 'Z'}
	Unicode       = Mapping{last: 'Z', wide: true} // for precis and rfc7613 casemappings
)

// Of returns the mapping that a CASEMAPPING token names. A name that is not known gets ASCII: it takes the fewest names for
// the same.
func Of(name string) Mapping {
	switch strings.ToLower(name) {
	case "", "rfc1459":
		return RFC1459
	case "strict-rfc1459", "rfc1459-strict":
		return StrictRFC1459
	case "rfc7613", "precis", "rfc8265":
		return Unicode
	}
	return ASCII
}

// Fold returns the one spelling of name.
func (m Mapping) Fold(name string) string {
	if m.wide {
		name = strings.ToLower(name)
	}
	last := m.last
	if last == 0 {
		last = '^'
	}
	upper := func(c byte) bool { return 'A' <= c && c <= last }
	for i := range len(name) {
		if !upper(name[i]) {
			continue
		}
		folded := []byte(name)
		for ; i < len(folded); i++ {
			if upper(folded[i]) {
				folded[i] += 'a' - 'A'
			}
		}
		return string(folded)
	}
	return name
}
