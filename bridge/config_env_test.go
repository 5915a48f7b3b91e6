package bridge

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"
)

func TestConfigEnv_EverySetting_CanBeOverridden(t *testing.T) {
	n := &settledNetwork{}
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := parseConfig("config.yaml", []byte(goodSections), []string{
		"TRESTLE_HOMESERVER_ADDRESS=https://matrix.trestle.test/", "TRESTLE_APPSERVICE_BOT_DISPLAY_NAME=", "TRESTLE_APPSERVICE_MAX_BODY=32MiB",
		"TRESTLE_BRIDGE_ADMINS=@a:trestle.test, @b:trestle.test", "TRESTLE_BRIDGE_PLUMB_0_CHANNEL=#a", "TRESTLE_BRIDGE_PLUMB_0_ROOM=!a:trestle.test",
		"TRESTLE_BRIDGE_PLUMB_1_ROOM=#b:trestle.test", "TRESTLE_BRIDGE_PLUMB_1_CHANNEL=#b", "TRESTLE_BRIDGE_MEMBERSHIP_TO_MATRIX=false",
		"TRESTLE_LOG_FILE=", "TRESTLE_RETENTION_MESSAGES=10d", "TRESTLE_NETWORK_NICK=can", "TRESTLE_NETWORK_PASSWORD_FILE=" + secret,
		"TRESTLE_NETWORK_SERVERS_0_PORT=6697", "TRESTLE_NETWORK_SERVERS_1_ADDRESS=b.trestle.test", "TRESTLE_NETWORK_COLOURS_SKY=grey",
		"TRESTLE_NETWORK_WORDS=a,b", "TRESTLE_NETWORK_RETRIES=3", "TRESTLE_NETWORK_MOOD=good", "TRESTLE_NETWORK_CHANCE=0.5", "TRESTLE_NETWORK_LOUD=yes",
	}, n)
	if err != nil {
		t.Fatal(err)
	}
	three := 3
	want := &tinSettings{
		Nick: "can", Password: "hunter2", Servers: []tinServer{{Address: "tin.trestle.test", Port: 6697}, {Address: "b.trestle.test"}},
		Colours: map[string]string{"sky": "grey"}, Words: []string{"a", "b"}, Pause: 2 * time.Second, Cache: 1 << 20, Chance: 0.5, Retries: &three, Loud: true, Mood: 1,
	}
	if !reflect.DeepEqual(n.settings, want) {
		t.Errorf("network: got\n%+v\nwant\n%+v", n.settings, want)
	}
	if cfg.Homeserver.Address != "https://matrix.trestle.test" || cfg.Appservice.BotDisplayName != "" || cfg.Appservice.MaxBody != 32<<20 ||
		cfg.Bridge.Membership.ToMatrix || cfg.Retention.Messages != 240*time.Hour {
		t.Errorf("got %+v", cfg)
	}
	if !slices.Equal(cfg.Bridge.Admins, []id.UserID{"@a:trestle.test", "@b:trestle.test"}) ||
		!slices.Equal(cfg.Bridge.Plumb, []Plumb{{Room: "!a:trestle.test", Channel: "#a"}, {Room: "#b:trestle.test", Channel: "#b"}}) {
		t.Errorf("got %+v", cfg.Bridge)
	}
}

// Whatever has a name in the file has a variable: the names are made by the same rule that reads them.
func TestConfigEnv_EveryScalarOfTheFile_HasAVariable(t *testing.T) {
	n := &settledNetwork{}
	doc := reflect.ValueOf(&document{Config: DefaultConfig(n.Info()), Network: n.Config()}).Elem()
	names := envNames(doc, envPrefix, 0)
	if len(names) < 40 {
		t.Fatalf("only %d variables", len(names))
	}
	for _, name := range names {
		path, _, ok := envPath(strings.TrimPrefix(name, envPrefix), doc, nil)
		if !ok && !slices.Contains([]string{"TRESTLE_BRIDGE_PLUMB", "TRESTLE_NETWORK_SERVERS", "TRESTLE_NETWORK_COLOURS"}, name) {
			t.Errorf("%s means nothing", name)
		}
		if made := envPrefix + envName(strings.Join(path, "_")); ok && made != name {
			t.Errorf("%s means %v", name, path)
		}
	}
}

func TestConfigEnv_OverriddenMistake_IsNone(t *testing.T) {
	text := "homeserver: {address: [x], domain: example.org}\nnetwork: {servers: [{address: a.trestle.test, port: x}]}\n"
	_, err := parseConfig("config.yaml", []byte(text), []string{
		"TRESTLE_HOMESERVER_ADDRESS=http://localhost:8008", "TRESTLE_HOMESERVER_DOMAIN=trestle.test", "TRESTLE_NETWORK_SERVERS_0_PORT=1",
	}, &settledNetwork{})
	if err != nil {
		t.Error(err)
	}
}

func TestConfigEnv_Alias_IsNotChangedElsewhere(t *testing.T) {
	n := &settledNetwork{}
	text := `
homeserver: {address: "http://localhost:8008", domain: trestle.test}
network:
  servers:
    - &one {address: a.trestle.test, port: 1}
    - *one
`
	if _, err := parseConfig("config.yaml", []byte(text), []string{"TRESTLE_NETWORK_SERVERS_1_PORT=2"}, n); err != nil {
		t.Fatal(err)
	}
	if n.settings.Servers[0].Port != 1 || n.settings.Servers[1].Port != 2 {
		t.Errorf("got %+v", n.settings.Servers)
	}
}

func TestConfigEnv_SecretFileTooLarge_IsAMistake(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxSecretFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := parseConfig("config.yaml", []byte(goodSections), []string{"TRESTLE_NETWORK_PASSWORD_FILE=" + large}, &settledNetwork{})
	if err == nil || !strings.Contains(err.Error(), "larger than 64 KiB") {
		t.Errorf("got %v", err)
	}
}

// A value from a secret's file is never shown, whatever it is a value of.
func TestConfigEnv_WrongValueFromFile_IsNotShown(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := parseConfig("config.yaml", []byte(goodSections), []string{
		"TRESTLE_NETWORK_PAUSE_FILE=" + secret, "TRESTLE_NETWORK_MOOD_FILE=" + secret, "TRESTLE_BRIDGE_ADMINS_FILE=" + secret,
	}, &settledNetwork{})
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("got %v", err)
	}
}
