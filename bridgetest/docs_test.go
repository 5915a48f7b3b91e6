package bridgetest_test

import (
	"os"
	"strings"
	"testing"
)

// docs/testing.md shows the test of a whole bridge; it must be that test.
func TestDocs_ShowTheTestThatRuns(t *testing.T) {
	test, err := os.ReadFile("whole_test.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(page), "```go\n")
	shown, _, _ = strings.Cut(shown, "```")
	if shown == "" || !strings.Contains(string(test), shown) {
		t.Error("docs/testing.md does not show the test in whole_test.go as it is")
	}
}
