package bridge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the file and a variable hold, loading ends, and ends either with a configuration or with mistakes that have a
// line or a variable.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/config/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), "NETWORK_SERVERS_0_PORT", "1")
	}
	f.Add(goodSections, "BRIDGE_PLUMB_0_ROOM", "!a:b")
	f.Add("network: &a [*a]", "NETWORK_NICK", "x")
	f.Add("network: &a {colours: *a, servers: [*a]}", "NETWORK_COLOURS_SKY", "x")
	f.Add("? [a]\n: b\n", "NETWORK_WORDS", ",,")
	f.Fuzz(func(t *testing.T, text, name, value string) {
		if strings.HasSuffix(name, envFileSuffix) {
			return // would read any file
		}
		cfg, err := parseConfig("config.yaml", []byte(text), []string{envPrefix + name + "=" + value}, &settledNetwork{})
		if cfg == nil {
			t.Fatalf("got nothing beside %v", err)
		}
		if err == nil {
			return
		}
		mistakes := (*ConfigError)(nil)
		if !errors.As(err, &mistakes) || len(mistakes.Mistakes) == 0 {
			t.Fatalf("not a list of mistakes: %v", err)
		}
		for _, m := range mistakes.Mistakes {
			if m.Text == "" || m.Mend == "" || m.Line < 1 && m.Env == "" {
				t.Errorf("mistake without line, text or mend: %+v", m)
			}
		}
	})
}
