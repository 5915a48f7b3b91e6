// Command trestle-irc bridges Matrix rooms and IRC channels.
package main

import (
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/irc"
)

// version is set when the program is built: -ldflags "-X main.version=1.0.0".
var version = "dev"

func main() { bridge.Main(irc.NewNetwork(version)) }
