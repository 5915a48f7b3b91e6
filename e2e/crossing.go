package e2e

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/ergochat/irc-go/ircmsg"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Crossing is a room on Synapse and a channel on an IRC server with the bridge between them: alice on Matrix, bob on IRC.
type Crossing struct {
	Synapse *Synapse
	IRC     *IRCServer
	Gate    *Gate   // between the bridge and IRC, or nil
	Faults  *Faults // between the bridge and Synapse, or nil
	Bridge  *Bridge
	Alice   *MatrixUser
	Bob     *IRCUser
	Room    id.RoomID
	Channel string

	tb     testing.TB
	spoken int
}

// CrossingOptions say what a crossing is made of; nothing set is SQLite everywhere.
type CrossingOptions struct {
	IRC             func(testing.TB) *IRCServer // nil: StartInspIRCd
	StorePostgres   string                      // URI of an empty database for the bridge
	SynapsePostgres string                      // and of one for Synapse
	TLS             bool                        // between bridge and IRC server
	Gate            bool                        // between bridge and IRC server, without TLS
	Faults          bool                        // between the bridge and Synapse
	Network         map[string]any              // more of the bridge's `network:` section
	Encryption      map[string]any              // the bridge's `encryption:` section
	Witness         bool                        // of what Synapse gives the bridge
	SynapseConfig   string                      // more of homeserver.yaml, which the subcommand check may find fault with
}

// NewCrossing starts both servers and the bridge, with one room connected to one channel by the configuration.
func NewCrossing(tb testing.TB, opts CrossingOptions) *Crossing {
	tb.Helper()
	if opts.IRC == nil {
		opts.IRC = StartInspIRCd
	}
	c := &Crossing{tb: tb, IRC: opts.IRC(tb), Channel: "#crossing"}
	irc := *c.IRC // as the bridge sees it
	if opts.Gate {
		c.Gate = OpenGate(tb, c.IRC.Address)
		irc.Address = c.Gate.Address
	}
	port := FreePort(tb)
	seen := port // by the bridge
	if opts.Faults {
		c.Faults = StartFaults(tb, loopback(port))
		seen = c.Faults.Port
	}
	c.Bridge = NewBridge(tb, BridgeOptions{
		SynapsePort: seen, IRC: &irc, Database: opts.StorePostgres, TLS: opts.TLS, Network: opts.Network, Encryption: opts.Encryption, Witness: opts.Witness,
	})
	c.Synapse = StartSynapse(tb, SynapseOptions{
		Port: port, Postgres: opts.SynapsePostgres, Registrations: []string{c.Bridge.Registration}, Config: opts.SynapseConfig,
	})
	c.Alice = c.Synapse.User("alice")
	c.Room = c.Alice.CreateRoom("the room", c.Bridge.Bot)
	c.Bridge.Plumb(c.Room, c.Channel)

	// bob is there first, and so the channel's operator.
	c.Bob = c.IRC.User("bob")
	c.Bob.Join(c.Channel)
	if opts.SynapseConfig == "" {
		c.Bridge.Check()
	}
	c.Bridge.Start()
	c.Bob.WaitFor("the bridge's joining", c.bridgeJoins(c.Channel))
	c.Alice.WaitFor("the ghost of bob", Membership(c.Room, c.Bridge.Ghost("bob"), "join"))
	return c
}

func (c *Crossing) bridgeJoins(channel string) func(m ircmsg.Message) bool {
	return func(m ircmsg.Message) bool {
		return m.Command == "JOIN" && strings.EqualFold(m.Nick(), c.Bridge.Nick) &&
			len(m.Params) > 0 && strings.EqualFold(m.Params[0], channel)
	}
}

// Words makes a sentence that nobody has said before in this crossing, so that it can be counted.
func (c *Crossing) Words(what string) string {
	c.spoken++
	return fmt.Sprintf("%s (line %d)", what, c.spoken)
}

// relayed matches what the bridge says in a channel, with all the words in it.
func (c *Crossing) relayed(command, channel string, words ...string) func(m ircmsg.Message) bool {
	said := Said(command, channel, words...)
	return func(m ircmsg.Message) bool { return strings.EqualFold(m.Nick(), c.Bridge.Nick) && said(m) }
}

// ToIRC waits until bob reads from the bridge what was said on Matrix, and checks that he has read it once.
func (c *Crossing) ToIRC(words ...string) ircmsg.Message {
	c.tb.Helper()
	match := c.relayed("PRIVMSG", c.Channel, words...)
	m := c.Bob.WaitFor(strconv.Quote(strings.Join(words, " … ")), match)
	if n := c.Bob.Count(match); n != 1 {
		c.tb.Errorf("bob has read %q %d times", words, n)
	}
	c.tb.Logf("Matrix → IRC  %s", visible(m.Params[1]))
	return m
}

// ToMatrix waits until alice sees the ghost of nick say exactly that, and checks that she has seen it once.
func (c *Crossing) ToMatrix(nick, msgtype, body string) *event.Event {
	c.tb.Helper()
	ghost := c.Bridge.Ghost(nick)
	ev := c.Alice.WaitFor(fmt.Sprintf("%s %q from %s", msgtype, body, ghost), From(ghost, In(c.Room, msgtype, body)))
	if n := c.Alice.Count(bodyIs(body)); n != 1 {
		c.tb.Errorf("alice has seen %q %d times", body, n)
	}
	c.tb.Logf("IRC → Matrix  %s [%s] %s", ghost, msgtype, body)
	return ev
}

func bodyIs(body string) func(ev *event.Event) bool {
	return func(ev *event.Event) bool { return ev.Content.Raw["body"] == body }
}

// DevicesOf asks Synapse, as the bridge, which devices a ghost has.
func (c *Crossing) DevicesOf(ghost id.UserID) []id.DeviceID {
	c.tb.Helper()
	var answer struct {
		Devices []struct {
			ID id.DeviceID `json:"device_id"`
		} `json:"devices"`
	}
	c.Synapse.GetAs(c.Bridge.Token(), ghost, "/_matrix/client/v3/devices", &answer)
	var devices []id.DeviceID
	for _, device := range answer.Devices {
		devices = append(devices, device.ID)
	}
	return devices
}

// visible shows formatting codes as a person would write them down.
func visible(line string) string {
	quoted := strconv.Quote(line)
	return quoted[1 : len(quoted)-1]
}

// isLoopback says whether a link leads to this machine.
func isLoopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	return err == nil && name == "127.0.0.1"
}
