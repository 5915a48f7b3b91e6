package bridgetest

import (
	"fmt"
	"os"
	"regexp"

	"gopkg.in/yaml.v3"
)

// Registration is what the homeserver reads of an appservice's registration file.
type Registration struct {
	ID              string     `yaml:"id"`
	URL             string     `yaml:"url"` // empty: the appservice is never asked anything
	ASToken         string     `yaml:"as_token"`
	HSToken         string     `yaml:"hs_token"`
	SenderLocalpart string     `yaml:"sender_localpart"`
	RateLimited     bool       `yaml:"rate_limited"`
	Protocols       []string   `yaml:"protocols"`
	Namespaces      Namespaces `yaml:"namespaces"`
	// ReceiveEphemeral asks for ephemeral events under the stable key "ephemeral", PushEphemeral (MSC2409) under the
	// unstable one; either asks for to-device messages too.
	ReceiveEphemeral bool `yaml:"receive_ephemeral"`
	PushEphemeral    bool `yaml:"de.sorunome.msc2409.push_ephemeral"`
	// DeviceExtensions (MSC3202) asks for device lists, one-time key counts and fallback key types.
	DeviceExtensions bool `yaml:"org.matrix.msc3202"`
	// NoLogin (MSC4190) makes Synapse refuse logins, and registrations that would log in.
	NoLogin bool `yaml:"io.element.msc4190"`
	// DeviceManagement is Tuwunel's spelling of MSC4190: without it an appservice can make and delete no devices there.
	DeviceManagement bool `yaml:"device_management"`
}

// Namespaces are the IDs that an appservice is interested in.
type Namespaces struct {
	Users   []Namespace `yaml:"users"`
	Aliases []Namespace `yaml:"aliases"`
	Rooms   []Namespace `yaml:"rooms"`
}

// Namespace is a set of IDs: those whose beginning the expression matches, as in Synapse.
type Namespace struct {
	Regex     string `yaml:"regex"`
	Exclusive bool   `yaml:"exclusive"`
}

// ParseRegistration reads a registration in YAML.
func ParseRegistration(data []byte) (*Registration, error) {
	var reg Registration
	if err := yaml.Unmarshal(data, &reg); err != nil {
		return nil, fmt.Errorf("parsing the registration: %w", err)
	}
	return &reg, nil
}

// LoadRegistration reads a registration file.
func LoadRegistration(path string) (*Registration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the registration: %w", err)
	}
	reg, err := ParseRegistration(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return reg, nil
}

// matcher decides whether an ID is in one of the namespaces.
type matcher []*regexp.Regexp

func newMatcher(spaces []Namespace) (matcher, error) {
	var m matcher
	for _, s := range spaces {
		re, err := regexp.Compile(`\A(?:` + s.Regex + `)`)
		if err != nil {
			return nil, fmt.Errorf("namespace %q: %w", s.Regex, err)
		}
		m = append(m, re)
	}
	return m, nil
}

func (m matcher) match(id string) bool {
	for _, re := range m {
		if re.MatchString(id) {
			return true
		}
	}
	return false
}
