package bridge

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every file in testdata/config is a configuration with mistakes, and beside it stands what is said about them. A line
// that begins with "# env " sets a variable.
func TestConfig_WrongFiles_NameEveryMistake(t *testing.T) {
	files, err := filepath.Glob("testdata/config/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("too few wrong configurations: %d, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var env []string
			for line := range strings.Lines(string(data)) {
				if variable, ok := strings.CutPrefix(line, "# env "); ok {
					env = append(env, strings.TrimSpace(variable))
				}
			}
			var got string
			cfg, err := LoadConfig(path, env, &settledNetwork{})
			mistakes := (*ConfigError)(nil)
			switch {
			case errors.As(err, &mistakes):
				got = err.Error() + "\n"
			case err != nil:
				t.Fatal(err)
			default:
				for _, w := range cfg.Warnings() {
					got += "warning: " + w.String() + "\n"
				}
			}
			got = strings.ReplaceAll(got, path, "config.yaml")
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if got == "" {
				t.Error("no mistake and no warning was found")
			}
			for _, secret := range []string{"hunter2", "s3cr3t"} {
				if strings.Contains(got, secret) {
					t.Errorf("a secret is shown:\n%s", got)
				}
			}
		})
	}
}
