package bridge

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/appservice"
)

// What is in the file is what the four homeservers read, each in its own spelling.
func TestRegistration_HasTheKeysOfEveryHomeserverAndIsItsOwnersOnly(t *testing.T) {
	config := writeConfig(t, "")
	got := invoke(&settledNetwork{}, nil, "registration", "-config", config)
	for _, words := range []string{"app_service_config_files:", "msc2409_to_device_messages_enabled: true", "config_files:", "!admin appservices register", " check -config "} {
		got.want(t, exitOK, words, "")
	}
	path := filepath.Join(filepath.Dir(config), "registration.yaml")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`(?m)^id: 'tin'$`, `(?m)^url: 'http://.+'$`, `(?m)^as_token: '[A-Za-z0-9_-]{43}'$`, `(?m)^hs_token: '[A-Za-z0-9_-]{43}'$`,
		`(?m)^sender_localpart: 'tinbot'$`, `(?m)^rate_limited: false$`, `(?m)^protocols: \[.*\]$`, `(?m)^receive_ephemeral: true$`,
		`(?m)^de\.sorunome\.msc2409\.push_ephemeral: true$`, `(?m)^org\.matrix\.msc3202: true$`, `(?m)^io\.element\.msc4190: true$`, `(?m)^device_management: true$`,
		`(?m)^  users:\n    - exclusive: true\n      regex: '\^@tinbot:`, `(?m)^    - exclusive: true\n      regex: '\^@`, `(?m)^  aliases:\n    - exclusive: true\n      regex: '\^#`, `(?m)^  rooms: \[\]$`,
	} {
		if !regexp.MustCompile(line).Match(text) {
			t.Errorf("%s is not in\n%s", line, text)
		}
	}
	if strings.Contains(string(text), "exclusive: false") {
		t.Errorf("something is not exclusive:\n%s", text)
	}
}

func TestRegistration_FileThatIsThere_StaysUnlessToldAndKeepsItsTokens(t *testing.T) {
	config := writeConfig(t, "")
	path := filepath.Join(filepath.Dir(config), "registration.yaml")
	invoke(&settledNetwork{}, nil, "registration", "-config", config).want(t, exitOK, "", "")
	before, err := appservice.LoadRegistration(path)
	if err != nil {
		t.Fatal(err)
	}
	bot := []string{"TRESTLE_APPSERVICE_BOT=anotherbot"}
	invoke(&settledNetwork{}, bot, "registration", "-config", config).want(t, exitFailed, "", "nothing was changed; -replace writes it anew with the tokens that it has")
	if after, err := appservice.LoadRegistration(path); err != nil || after.SenderLocalpart != before.SenderLocalpart {
		t.Errorf("it was changed: %v, %v", after, err)
	}
	invoke(&settledNetwork{}, bot, "registration", "-replace", "-config", config).want(t, exitOK, path, "")
	after, err := appservice.LoadRegistration(path)
	if err != nil || after.SenderLocalpart != "anotherbot" || after.ASToken != before.ASToken || after.HSToken != before.HSToken {
		t.Errorf("after -replace: %v, %v", after, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("id: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	invoke(&settledNetwork{}, bot, "registration", "-replace", "-config", config).want(t, exitFailed, "", "the one that is there has mistakes")
	if text, err := os.ReadFile(path); err != nil || string(text) != "id: 5\n" {
		t.Errorf("it became %q, %v", text, err)
	}
}
