package bridge

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var commentedSetting = regexp.MustCompile(`(?m)^( *)#([a-z_]+:)`)

// fillIn does what the example asks for.
func fillIn(example []byte) []byte {
	return []byte(strings.ReplaceAll(string(example), "example.org", "trestle.test"))
}

func TestConfigExample_UnfilledExample_IsAMistake(t *testing.T) {
	_, err := parseConfig("config.yaml", ExampleConfig(&settledNetwork{}), nil, &settledNetwork{})
	if err == nil {
		t.Fatal("the example was taken as it is")
	}
	for _, path := range []string{"homeserver.address", "homeserver.domain", "network.servers.0.address"} {
		if !strings.Contains(err.Error(), path+": ") {
			t.Errorf("%s is not named in:\n%v", path, err)
		}
	}
}

func TestConfigExample_FilledIn_Loads(t *testing.T) {
	cfg, err := parseConfig("config.yaml", fillIn(ExampleConfig(&settledNetwork{})), nil, &settledNetwork{})
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig(plainNetwork{}.Info())
	want.Homeserver = HomeserverConfig{"https://matrix.trestle.test", "trestle.test"}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got\n%+v\nwant the defaults\n%+v", cfg, want)
	}
}

func TestConfigExample_EveryCommentedSetting_IsTheDefault(t *testing.T) {
	n := &settledNetwork{}
	text := commentedSetting.ReplaceAll(fillIn(ExampleConfig(n)), []byte("$1$2"))
	cfg, err := parseConfig("config.yaml", text, nil, n)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	want := DefaultConfig(n.Info())
	want.Homeserver = HomeserverConfig{"https://matrix.trestle.test", "trestle.test"}
	// An empty list and none are the same.
	want.Bridge.Plumb, want.Bridge.Admins = []Plumb{}, cfg.Bridge.Admins[:0]
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got\n%+v\nwant\n%+v", cfg, want)
	}
	if n.settings.Nick != "tin" || n.settings.Cache != 1<<20 {
		t.Errorf("the network's settings became %+v", n.settings)
	}
}

func TestConfigExample_EverySetting_IsDocumented(t *testing.T) {
	d := newDecoder("config.yaml")
	text := commentedSetting.ReplaceAll(fillIn(ExampleConfig(plainNetwork{})), []byte("$1$2"))
	doc := reflect.ValueOf(&document{Config: DefaultConfig(plainNetwork{}.Info())}).Elem()
	d.decode(d.parse(text), doc, "", false)
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		for _, f := range fieldsOf(v) {
			at := join(path, f.name)
			if _, written := d.at[at]; !written && at != "network" {
				t.Errorf("%s is not in the example", at)
			}
			if f.value.Kind() == reflect.Struct {
				walk(f.value, at)
			}
		}
	}
	walk(doc, "")
}

func TestConfigExample_NetworkWithoutExample_ShowsItsDefaults(t *testing.T) {
	n := struct{ *settledNetwork }{&settledNetwork{}}
	type bare interface {
		Network
		Configurable
	}
	text := ExampleConfig(struct{ bare }{n})
	for _, line := range []string{"network:\n  nick: tin\n", "  cache: 1MiB\n", "    sky: blue\n"} {
		if !bytes.Contains(text, []byte(line)) {
			t.Errorf("%q is not in\n%s", line, text)
		}
	}
	if bytes.Contains(ExampleConfig(plainNetwork{}), []byte("\nnetwork:")) {
		t.Error("a network without settings has a section in the example")
	}
}

func TestConfigExample_UnusualName_IsQuoted(t *testing.T) {
	n := namedNetwork{plainNetwork{}, Info{ID: "odd", Name: "Odd: \"quoted\" # name", Command: "!odd"}}
	text := commentedSetting.ReplaceAll(fillIn(ExampleConfig(n)), []byte("$1$2"))
	cfg, err := parseConfig("config.yaml", text, nil, n)
	if err != nil {
		t.Fatal(err)
	}
	if want := n.info.Name + " bridge"; cfg.Appservice.BotDisplayName != want || cfg.Bridge.Command != "!odd" {
		t.Errorf("got %q and %q, want %q and !odd", cfg.Appservice.BotDisplayName, cfg.Bridge.Command, want)
	}
}

type namedNetwork struct {
	plainNetwork
	info Info
}

func (n namedNetwork) Info() Info { return n.info }

func TestConfig_Paths_AreRelativeToTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte(goodSections+"log: {file: log/bridge.log}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(path, []string{"TRESTLE_DATABASE=sqlite:data/x.db"}, &settledNetwork{})
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		cfg.Appservice.Registration: filepath.Join(dir, "registration.yaml"),
		cfg.Log.File:                filepath.Join(dir, "log/bridge.log"),
		cfg.Database:                "sqlite:" + filepath.Join(dir, "data/x.db"),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	cfg, err = LoadConfig(path, []string{"TRESTLE_DATABASE=sqlite:///data/x.db", "TRESTLE_APPSERVICE_REGISTRATION=/etc/r.yaml"}, &settledNetwork{})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Database != "sqlite:///data/x.db" || cfg.Appservice.Registration != "/etc/r.yaml" {
		t.Errorf("absolute paths became %s and %s", cfg.Database, cfg.Appservice.Registration)
	}
}

func TestConfig_Address_FollowsListen(t *testing.T) {
	for listen, want := range map[string]string{"127.0.0.1:5000": "http://127.0.0.1:5000", "[::1]:5000": "http://[::1]:5000", "bridge:5000": "http://bridge:5000"} {
		cfg, err := parseConfig("config.yaml", []byte(goodSections), []string{"TRESTLE_APPSERVICE_LISTEN=" + listen}, &settledNetwork{})
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Appservice.Address != want {
			t.Errorf("%s: got %s, want %s", listen, cfg.Appservice.Address, want)
		}
	}
}

func TestConfig_NetworkWithoutSettings_RefusesTheSection(t *testing.T) {
	_, err := parseConfig("config.yaml", []byte(goodSections), nil, plainNetwork{})
	if err == nil || err.Error() != "config.yaml:3: network: Tin Can has no settings; remove the section" {
		t.Errorf("got %v", err)
	}
}
