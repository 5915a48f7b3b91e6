package truth

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	quoted  = regexp.MustCompile(`"([^"|]+(?:"[^",|]*")?)"(?:,|;| \|)`)
	slanted = regexp.MustCompile(`\*([^*|]+)\*`)
	test    = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
)

// Each row of COVERAGE.md names what there is, or says why nothing is; and each case is in a row.
func TestCoverage_NamesWhatThereIs(t *testing.T) {
	table, err := os.ReadFile("COVERAGE.md")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := Cases()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range cases {
		names = append(names, c.Name)
	}
	var tests strings.Builder
	files, err := filepath.Glob("../*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(source)
	}
	named := make(map[string]bool)
	for line := range strings.Lines(string(table)) {
		cells := strings.SplitN(strings.Trim(line, "|\n "), " | ", 2)
		if !strings.HasPrefix(line, "| ") || cells[0] == "Fact" {
			continue
		}
		held := cells[len(cells)-1] + " |"
		found := strings.Contains(held, "not covered: ")
		for _, match := range slanted.FindAllStringSubmatch(held, -1) {
			found = true
			if !strings.Contains(Pushed()+PushedFew(), "## "+match[1]+"\n") {
				t.Errorf("no part of a record is called %q", match[1])
			}
		}
		for _, match := range test.FindAllStringSubmatch(held, -1) {
			found = true
			if !strings.Contains(tests.String(), "func "+match[1]+"(") {
				t.Errorf("there is no %s", match[1])
			}
		}
		for _, match := range quoted.FindAllStringSubmatch(slanted.ReplaceAllString(held, ""), -1) {
			found, named[match[1]] = true, true
			if !slices.Contains(names, match[1]) {
				t.Errorf("there is no case %q", match[1])
			}
		}
		if !found {
			t.Errorf("nothing holds %q", cells[0])
		}
	}
	for _, name := range names {
		if !named[name] {
			t.Errorf("the case %q is in no row", name)
		}
	}
}
