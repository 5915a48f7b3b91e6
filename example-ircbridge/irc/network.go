package irc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// Network is IRC as the bridge sees it. Use [NewNetwork].
type Network struct {
	version string
	dial    func(context.Context, *Config) (net.Conn, error)

	mu     sync.Mutex
	config *Config
	crew   *crew // of the sessions since the relay's was opened
}

var (
	_ bridge.Network          = (*Network)(nil)
	_ bridge.Configurable     = (*Network)(nil)
	_ bridge.ChannelValidator = (*Network)(nil)
	_ bridge.ConfigExampler   = (*Network)(nil)
	_ bridge.LoginMaker       = (*Network)(nil)
)

// NewNetwork returns the IRC network. The version is the bridge's.
func NewNetwork(version string) *Network { return &Network{version: version, dial: dial} }

// Info implements [bridge.Network].
func (n *Network) Info() bridge.Info {
	return bridge.Info{ID: "irc", Name: "IRC", Command: "!irc", Version: n.version}
}

// Config implements [bridge.Configurable]: it returns a *Config.
func (n *Network) Config() any {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.config == nil {
		n.config = defaultConfig()
	}
	return n.config
}

// ExampleConfig implements [bridge.ConfigExampler]: it returns the variable of the same name.
func (n *Network) ExampleConfig() string { return ExampleConfig }

// Validate implements [bridge.Configurable].
func (n *Network) Validate() []bridge.Problem { return n.Config().(*Config).problems() }

// Open implements [bridge.Network]. The relay's login is opened first, and closed last.
func (n *Network) Open(_ context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	if login.ID != bridge.RelayLogin {
		return n.openLogin(login, sink)
	}
	if problems := n.Validate(); len(problems) > 0 {
		p := problems[0]
		return nil, fmt.Errorf("network.%s: %s; %s", p.Path, p.Text, p.Mend)
	}
	s := n.open(*n.Config().(*Config), login, sink, newCrew(newOutlet(sink)))
	n.mu.Lock()
	n.crew = s.crew
	n.mu.Unlock()
	return s, nil
}

// Channel implements [bridge.ChannelValidator]. The canonical name has the letters A to Z in lower case and nothing else
// changed: that is the same channel under every casemapping, also before the network's is known. Names that differ by more
// and are one channel on the network (#a[ and #a{ under rfc1459) are refused by JoinChannel.
func (n *Network) Channel(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("the channel has no name: write it as #channel")
	case name[0] != '#' && name[0] != '&':
		return "", fmt.Errorf("%q is no channel name: it must start with # or &", name)
	case len(name) == 1:
		return "", fmt.Errorf("%q is no channel name: something must follow the %s", name, name)
	case len(name) > 200:
		return "", fmt.Errorf("the channel's name has %d bytes: IRC has at most 200", len(name))
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == ',' || r == 0x7f }):
		return "", fmt.Errorf("%q is no channel name: it must not contain spaces, commas or control characters", name)
	}
	return casemap.ASCII.Fold(name), nil
}
