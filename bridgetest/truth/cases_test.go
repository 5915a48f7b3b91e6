package truth

import (
	"slices"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestCases_NameOnlyWhatThereIs(t *testing.T) {
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, p := range bridgetest.Personalities() {
		known = append(known, key(p))
	}
	steps := 0
	names := make(map[string]bool)
	for _, c := range cases {
		if names[c.Name] || c.Name == "" {
			t.Errorf("the name %q is not one case's", c.Name)
		}
		names[c.Name] = true
		for _, p := range c.On {
			if !slices.Contains(known, p) {
				t.Errorf("%s: there is no %s", c.Name, p)
			}
		}
		for i, s := range c.Steps {
			answers := []Answer{s.Answer}
			for p, a := range s.But {
				answers = append(answers, Answer(a))
				if !slices.Contains(known, p) || len(c.On) > 0 && !slices.Contains(c.On, p) {
					t.Errorf("%s, step %d: %s is not in this case", c.Name, i+1, p)
				}
			}
			if s.Do == "" {
				continue
			}
			steps++
			for _, a := range answers {
				if _, _, err := a.split(); err != nil && a.Want != leftOut && a.Want != noAnswer {
					t.Errorf("%s, step %d: %v", c.Name, i+1, err)
				}
				for _, v := range a.Has {
					if name, ok := v.(string); ok && strings.HasPrefix(name, "<") && shapes[name] == nil {
						t.Errorf("%s, step %d: there is no shape %s", c.Name, i+1, name)
					}
				}
			}
		}
	}
	t.Logf("%d cases with %d requests", len(cases), steps)
}

func TestMatches_ShapesAndJSON(t *testing.T) {
	for _, c := range []struct {
		got, want any
		ok        bool
	}{
		{"$" + strings.Repeat("a", 43), "<event>", true}, {"$short", "<event>", false}, {1437.0, "<number>", true}, {"x", "<number>", false},
		{[]any{1.0}, []any{1}, true}, {"a", "b", false}, {nil, nil, true}, {"", "<any>", true},
	} {
		if matches(c.got, c.want) != c.ok {
			t.Errorf("%v and %v", c.got, c.want)
		}
	}
}
