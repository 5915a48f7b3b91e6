package e2e

import (
	"strings"
	"testing"

	"github.com/ergochat/irc-go/ircmsg"
)

func TestIRCServers_TwoUsers_ReadEachOther(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(testing.TB) *IRCServer
	}{{"inspircd", StartInspIRCd}, {"ngircd", StartNgIRCd}} {
		t.Run(c.name, func(t *testing.T) {
			server := c.start(t)
			bob, eve := server.User("bob"), server.User("eve")
			bob.Join("#trestle")
			eve.Join("#trestle")
			bob.Say("#trestle", "hello eve")
			eve.WaitFor("bob's words", Said("PRIVMSG", "#trestle", "hello eve"))
			eve.Act("#trestle", "waves")
			bob.WaitFor("eve's wave", Said("PRIVMSG", "#trestle", "\x01ACTION waves\x01"))
			bob.Rename("bobby")
			eve.Quit("gone")
			bob.WaitFor("eve's quitting", func(m ircmsg.Message) bool { return m.Command == "QUIT" && m.Nick() == "eve" })
		})
	}
}

func TestIRCServers_KilledAndStartedAgain_ListenOnTheSamePort(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(testing.TB) *IRCServer
	}{{"inspircd", StartInspIRCd}, {"ngircd", StartNgIRCd}} {
		t.Run(c.name, func(t *testing.T) {
			server := c.start(t)
			server.User("bob")
			server.Kill()
			server.Start()
			server.User("bob")
		})
	}
}

func TestIRCServers_InspIRCdWithTLS_ShowsItsCertificate(t *testing.T) {
	server := StartInspIRCd(t)
	bob := server.UserTLS("bob")
	bob.Join("#secret")
}

func TestIRCServers_InspIRCd_OffersTheCapabilitiesThatTheBridgeUses(t *testing.T) {
	server := StartInspIRCd(t)
	bob := server.User("bob")
	bob.Line("CAP", "LS", "302")
	for _, name := range []string{"message-tags", "server-time", "echo-message", "labeled-response", "batch"} {
		bob.WaitFor("the capability "+name, func(m ircmsg.Message) bool {
			return m.Command == "CAP" && len(m.Params) > 2 && m.Params[1] == "LS" && hasWord(m.Params[len(m.Params)-1], name)
		})
	}
}

func hasWord(line, word string) bool {
	for _, w := range strings.Fields(line) {
		if w == word || strings.HasPrefix(w, word+"=") {
			return true
		}
	}
	return false
}
