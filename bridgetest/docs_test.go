package bridgetest_test

import (
	"os"
	"strings"
	"testing"
)

// docs/testing.md shows tests that run; they must be those tests.
func TestDocs_ShowTheTestsThatRun(t *testing.T) {
	var tests strings.Builder
	for _, name := range []string{"whole_test.go", "recipes_test.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	page, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	for _, block := range blocks {
		shown, _, ended := strings.Cut(block, "```")
		if !ended || shown == "" || !strings.Contains(tests.String(), shown) {
			t.Errorf("docs/testing.md shows a test that is not in whole_test.go or recipes_test.go as it is there:\n%s", shown)
		}
	}
	for name := range strings.FieldsFuncSeq(tests.String(), func(r rune) bool { return strings.ContainsRune(" (\n", r) }) {
		if strings.HasPrefix(name, "TestRecipe_") && !strings.Contains(string(page), name) {
			t.Errorf("docs/testing.md does not show %s", name)
		}
	}
}
