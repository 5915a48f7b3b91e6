package bridge_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

func TestMain_HelpTexts_AreTheGoldenOnes(t *testing.T) {
	for _, args := range []string{"", "registration", "check", "uninstall"} {
		var out bytes.Buffer
		if status := bridge.RunCommand(bridgetest.NewNetwork(), append(strings.Fields(args), "-help"), nil, nil, &out, &out); status != 0 {
			t.Errorf("%s -help ended with status %d", args, status)
		}
		name := "help"
		if args != "" {
			name = args
		}
		golden(t, filepath.Join("testdata", "help", name+".txt"), strings.ReplaceAll(out.String(), filepath.Base(os.Args[0]), "trestle-irc"))
	}
}

// shown finds an output that a page shows, with the golden file that it is.
var shown = regexp.MustCompile("(?s)<!-- output: ([^ ]+) -->\n```\n((?:\\$ [^\n]*\n)?)(.*?)```\n")

// What docs/operating.md shows is what the program prints: the golden files.
func TestDocs_ShowTheOutputsThatTheProgramHas(t *testing.T) {
	const page = "../docs/operating.md"
	text := string(must(os.ReadFile(page))(t))
	want := shown.ReplaceAllStringFunc(text, func(block string) string {
		part := shown.FindStringSubmatch(block)
		output := must(os.ReadFile(filepath.Join("..", part[1])))(t)
		return "<!-- output: " + part[1] + " -->\n```\n" + part[2] + string(output) + "```\n"
	})
	if strings.Count(text, "<!-- output: ") != len(shown.FindAllString(text, -1)) || !shown.MatchString(text) {
		t.Error("a block that says which output it shows is not closed, or there is none")
	}
	if *bridge.UpdateGolden {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if text != want {
		t.Error("docs/operating.md shows other outputs than the program has; go test ./bridge -run 'Check|Uninstall|Docs' -update")
	}
}
