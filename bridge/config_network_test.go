package bridge

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
)

// plainNetwork has no settings.
type plainNetwork struct{}

func (plainNetwork) Info() Info {
	return Info{ID: "tin", Name: "Tin Can", Command: "!tin", Version: "1.2.3"}
}

func (plainNetwork) Open(context.Context, *Login, Sink) (Session, error) {
	return nil, errors.New("there is no string")
}

// settledNetwork has settings of every kind, as a real one has.
type settledNetwork struct {
	plainNetwork
	settings *tinSettings
}

type tinSettings struct {
	Nick     string            `yaml:"nick"`
	Password string            `yaml:"password"`
	Servers  []tinServer       `yaml:"servers"`
	Colours  map[string]string `yaml:"colours"`
	Words    []string          `yaml:"words"`
	Pause    time.Duration     `yaml:"pause"`
	Cache    Size              `yaml:"cache"`
	Chance   float64           `yaml:"chance"`
	Retries  *int              `yaml:"retries"`
	Loud     bool              `yaml:"loud"`
	Mood     mood              `yaml:"mood"`
	Chain    *tinLink          `yaml:"chain"`
}

// tinLink has no end in its type, so that a cycle in the file could have none.
type tinLink struct {
	Next *tinLink `yaml:"next"`
}

type tinServer struct {
	Address string `yaml:"address"`
	Port    uint16 `yaml:"port"`
	Token   string `yaml:"token"`
}

// mood decodes itself.
type mood int

func (m *mood) UnmarshalText(text []byte) error {
	switch string(text) {
	case "good":
		*m = 1
	case "bad":
		*m = 2
	default:
		return errors.New(strconv.Quote(string(text)) + " is no mood")
	}
	return nil
}

func (n *settledNetwork) Config() any {
	n.settings = &tinSettings{Nick: "tin", Pause: 2 * time.Second, Cache: 1 << 20, Colours: map[string]string{"sky": "blue"}}
	return n.settings
}

func (n *settledNetwork) Validate() (list []Problem) {
	if len(n.settings.Servers) == 0 {
		list = append(list, Problem{"servers", "there is no server", "write a list of servers"})
	}
	for i, s := range n.settings.Servers {
		if s.Address == "" {
			list = append(list, Problem{"servers." + strconv.Itoa(i) + ".address", "is empty", "write a host name"})
		}
	}
	if strings.ContainsAny(n.settings.Nick, " ") {
		list = append(list, Problem{"nick", "has a space", "write one word"})
	}
	return list
}

// Channel takes names that begin with #, in any case.
func (n *settledNetwork) Channel(name string) (string, error) {
	if !strings.HasPrefix(name, "#") {
		return "", errors.New("it does not begin with #")
	}
	return strings.ToLower(name), nil
}

func (n *settledNetwork) ExampleConfig() string {
	return `  # Who the bridge is.
  #nick: tin
  #pause: 2s
  #cache: 1MiB
  servers:
    - address: tin.example.org
`
}

const goodSections = `
homeserver: {address: "http://localhost:8008", domain: trestle.test}
network: {servers: [{address: tin.trestle.test}]}
`
