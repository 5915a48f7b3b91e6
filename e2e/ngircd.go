package e2e

import (
	"fmt"
	"testing"
)

// StartNgIRCd starts an ngIRCd that ends with the test: the floor, a server with hardly any capabilities, short nicks
// and a penalty for whoever is fast.
func StartNgIRCd(tb testing.TB) *IRCServer {
	tb.Helper()
	port := FreePort(tb)
	config := fmt.Sprintf(`[Global]
	Name = irc.ngircd.test
	Info = for tests
	AdminInfo1 = test
	AdminEMail = test@ngircd.test
	Listen = 127.0.0.1
	Ports = %d
	MotdPhrase = "Hello"
[Limits]
	MaxConnections = 0
	MaxConnectionsIP = 0
	MaxJoins = 0
[Options]
	DNS = no
	Ident = no
	PAM = no
`, port)
	return startIRCServer(tb, &IRCServer{Kind: "ngircd", Address: loopback(port)},
		map[string]string{"ngircd.conf": config}, "-n", "-f", "@DIR@/ngircd.conf")
}
