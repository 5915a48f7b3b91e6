package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/irc"
)

// documentedIRC is IRC with the commented section that the IRC bridge prints.
const ircExample = "config.example.yaml"

var update = flag.Bool("update", false, "write config.example.yaml anew")

// The file in the repository is what the IRC bridge prints. Run with -update to write it anew.
func TestConfigExample_OfTheIRCBridge_IsUpToDate(t *testing.T) {
	want := bridge.ExampleConfig(irc.NewNetwork("test"))
	if *update {
		if err := os.WriteFile(ircExample, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(ircExample)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what config -print prints; run: go test ./example-ircbridge -update", ircExample)
	}
}

func TestConfigExample_OfTheIRCBridge_LoadsOnceFilledIn(t *testing.T) {
	example, err := os.ReadFile(ircExample)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(example), "example.org", "trestle.test")), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := bridge.LoadConfig(path, nil, irc.NewNetwork("test"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Appservice.Ghosts != "irc_" || cfg.Bridge.Command != "!irc" {
		t.Errorf("got %+v", cfg)
	}
	if err := os.WriteFile(path, example, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = bridge.LoadConfig(path, nil, irc.NewNetwork("test"))
	for _, setting := range []string{"homeserver.address", "homeserver.domain", "network.address"} {
		if err == nil || !strings.Contains(err.Error(), ": "+setting+": ") {
			t.Errorf("%s was left as the example has it, and that is not said: %v", setting, err)
		}
	}
}
