package irc

import (
	"context"
	"errors"

	"github.com/trestle-bridge/trestle/bridge"
)

// Network is IRC as the bridge sees it.
type Network struct{ version string }

// NewNetwork returns the IRC network. The version is the bridge's.
func NewNetwork(version string) *Network { return &Network{version: version} }

// Info implements [bridge.Network].
func (n *Network) Info() bridge.Info {
	return bridge.Info{ID: "irc", Name: "IRC", Command: "!irc", Version: n.version}
}

// Open implements [bridge.Network].
func (n *Network) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	return nil, errors.New("not ready")
}

// ExampleConfig is the commented `network:` section of the example configuration, indented by two spaces.
const ExampleConfig = ""
