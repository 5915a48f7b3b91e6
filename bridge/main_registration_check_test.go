package bridge

import (
	"os"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/appservice"
)

// listed is a network that can be searched, as far as the registration is concerned.
type listed struct{ *settledNetwork }

var _ Directory = listed{}

func (listed) Protocol() appservice.Protocol                  { return appservice.Protocol{} }
func (listed) UserBy(map[string]string) (string, bool)        { return "", false }
func (listed) UserFields(RemoteUser) map[string]string        { return nil }
func (listed) ChannelBy(map[string]string) (string, bool)     { return "", false }
func (listed) ChannelFields(channel string) map[string]string { return nil }

func TestRegistration_NetworkThatCanBeSearched_ListsItsProtocol(t *testing.T) {
	path := writeConfig(t, "")
	invoke(listed{&settledNetwork{}}, nil, "registration", "-config", path).want(t, exitOK, "", "")
	cfg, err := LoadConfig(path, nil, listed{&settledNetwork{}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := appservice.LoadRegistration(cfg.Appservice.Registration)
	if err != nil || len(r.Protocols) != 1 || r.Protocols[0] != "tin" {
		t.Fatal(r, err)
	}
	if notes := registrationNotes(cfg, listed{&settledNetwork{}}); len(notes) != 0 {
		t.Error(notes)
	}
	if notes := registrationNotes(cfg, plainNetwork{}); len(notes) != 1 || !strings.Contains(notes[0].Error(), `"tin" is listed, and this bridge has nothing`) {
		t.Error(notes)
	}
	text, _ := os.ReadFile(cfg.Appservice.Registration)
	if err := os.WriteFile(cfg.Appservice.Registration, []byte(strings.Replace(string(text), "protocols: ['tin']", "protocols: []", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if notes := registrationNotes(cfg, listed{&settledNetwork{}}); len(notes) != 1 || !strings.Contains(notes[0].Error(), "protocols: tin is not listed") || !strings.Contains(notes[0].Error(), `write protocols: ["tin"]; then restart`) {
		t.Error(notes)
	}
	if list := registrationMistakes(cfg, nil); len(list) != 0 {
		t.Error("it is no mistake: the bridge works without", list)
	}
	invoke(listed{&settledNetwork{}}, nil, "check", "-config", path).want(t, exitFailed, "WARN  registration", "") // nobody listens there
}

func TestCheck_MisspeltSetting_IsNotComparedWithTheRegistration(t *testing.T) {
	path := writeConfig(t, "")
	invoke(&settledNetwork{}, nil, "registration", "-config", path).want(t, exitOK, "", "")
	text, _ := os.ReadFile(path)
	misspelt := strings.Replace(string(text), "domain:", "domian:", 1)
	if misspelt == string(text) {
		t.Fatal("the configuration has no domain")
	}
	if err := os.WriteFile(path, []byte(misspelt), 0o600); err != nil {
		t.Fatal(err)
	}
	got := invoke(&settledNetwork{}, nil, "check", "-config", path)
	got.want(t, exitWrong, "write domain instead", "")
	if strings.Contains(got.stdout, "registration") {
		t.Errorf("the registration is blamed for what the configuration does not say:\n%s", got.stdout)
	}
}
