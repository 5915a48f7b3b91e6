package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// inspircdModules are what a modern network loads: together they give the capabilities account-notify, account-tag,
// away-notify, batch, cap-notify, chghost, echo-message, extended-join, invite-notify, labeled-response, message-tags,
// multi-prefix, server-time, setname and userhost-in-names. ircv3_sts and sasl need more than the module, and are left
// out.
var inspircdModules = []string{
	"ssl_gnutls", "cap", "ircv3", "ircv3_accounttag", "ircv3_batch", "ircv3_capnotify", "ircv3_chghost", "ircv3_ctctags",
	"ircv3_echomessage", "ircv3_invitenotify", "ircv3_labeledresponse", "ircv3_msgid", "ircv3_servertime", "monitor",
	"namesx", "uhnames", "setname", "services_account", "botmode", "sslinfo",
}

// StartInspIRCd starts an InspIRCd that ends with the test: the modern server, with and without TLS.
func StartInspIRCd(tb testing.TB) *IRCServer {
	tb.Helper()
	return startInspIRCd(tb, "irc.inspircd.test", "1TT", "")
}

// StartInspIRCds starts two that are one network. What they have to say to each other goes through the gate: while it is closed, the network is split.
func StartInspIRCds(tb testing.TB) (one, two *IRCServer, between *Gate) {
	tb.Helper()
	const linked = `<module name="spanningtree">
<bind address="127.0.0.1" port="%d" type="servers">
<link name="%s" ipaddr="127.0.0.1" allowmask="127.0.0.0/8" port="%d" timeout="5s" sendpass="linked" recvpass="linked">
`
	port := FreePort(tb)
	between = OpenGate(tb, loopback(port))
	_, through, _ := strings.Cut(between.Address, ":")
	to, _ := strconv.Atoi(through)
	two = startInspIRCd(tb, "two.inspircd.test", "2TT", fmt.Sprintf(linked, port, "irc.inspircd.test", FreePort(tb)))
	one = startInspIRCd(tb, "irc.inspircd.test", "1TT",
		fmt.Sprintf(linked, FreePort(tb), "two.inspircd.test", to)+"<autoconnect period=\"1s\" server=\"two.inspircd.test\">\n")
	return one, two, between
}

func startInspIRCd(tb testing.TB, name, id, more string) *IRCServer {
	tb.Helper()
	plain, secure := FreePort(tb), FreePort(tb)
	certificate, key, roots := selfSigned(tb)
	var config strings.Builder
	fmt.Fprintf(&config, `<server name="%s" description="for tests" network="Inspired" id="%s">
<admin name="test" nick="test" email="test@inspircd.test">
<path configdir="@DIR@" datadir="@DIR@" logdir="@DIR@" runtimedir="@DIR@">
<bind address="127.0.0.1" port="%d" type="clients">
<bind address="127.0.0.1" port="%d" type="clients" sslprofile="tests">
<sslprofile name="tests" provider="gnutls" certfile="@DIR@/certificate.pem" keyfile="@DIR@/key.pem" requestclientcert="no">
<connect name="everybody" allow="*" registertimeout="30" timeout="300" pingfreq="120" threshold="100000" commandrate="100000000"
 fakelag="off" hardsendq="16M" softsendq="1M" recvq="1M" localmax="10000" globalmax="10000" resolvehostnames="off"
 useident="no" limit="10000" maxchans="1000">
<performance softlimit="12800" clonesonconnect="no" quietbursts="yes">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="server.log">
`, name, id, plain, secure)
	config.WriteString(more)
	for _, module := range inspircdModules {
		fmt.Fprintf(&config, "<module name=%q>\n", module)
	}
	return startIRCServer(tb,
		&IRCServer{
			Kind: "inspircd", Address: loopback(plain), TLS: loopback(secure), CAFile: "certificate.pem", Roots: roots,
		},
		map[string]string{"inspircd.conf": config.String(), "certificate.pem": certificate, "key.pem": key},
		"--config=@DIR@/inspircd.conf", "--nofork", "--nopid")
}
