package irc

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

func TestNick_Taken_AnotherIsTried_AndTheNickIsTakenBack(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": allCaps, "none": noCaps} {
		t.Run(name, func(t *testing.T) {
			server := startServer(t, opts)
			newWitness(t, server, "Bridge")
			f := &fixture{t: t, server: server, sink: newSink(), network: NewNetwork("")}
			f.network.config = testConfig(server.Addr())
			session, err := f.network.Open(t.Context(), &bridge.Login{ID: bridge.RelayLogin}, f.sink)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close(context.Background())
			f.session = session
			f.join("#c")
			if got := server.Members("#c"); got[0] != "bridge_" {
				t.Fatal(got)
			}
			server.Disconnect("Bridge")
			for deadline := time.Now().Add(20 * time.Second); server.Members("#c")[0] != "bridge"; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal(server.Members("#c"))
				}
			}
			f.mustSend(message("x"))
		})
	}
}

func TestNick_TooLong_IsCut(t *testing.T) {
	f := start(t, ircd.Options{NickLen: 9, Capabilities: []string{}}, func(c *Config) { c.Nick = "a-very-long-nick" })
	f.join("#c")
	if got := f.server.Members("#c")[0]; len(got) > 9 {
		t.Error(got)
	}
}

func TestFallbackNick_FitsTheLimit_AndDiffers(t *testing.T) {
	seen := map[string]bool{}
	for n := 1; n <= 6; n++ {
		nick := fallbackNick("abcdefghi", n, 9)
		if len(nick) > 9 || !validNick(nick) || (seen[nick] && n > 3) {
			t.Errorf("%d: %q", n, nick)
		}
		seen[nick] = true
	}
}

func TestSASL_LogsIn_OrStaysAway(t *testing.T) {
	accounts := map[string]string{"bridge": strings.Repeat("x", 400)}
	account := func(c *Config) { c.SASL = SASL{Mechanism: "PLAIN", Account: "bridge", Password: accounts["bridge"]} }
	f := start(t, ircd.Options{Accounts: accounts}, account)
	f.join("#c")
	f.witness.send("WHOIS bridge")
	f.witness.until(" 330 witness bridge bridge ")

	wrong := start(t, ircd.Options{Accounts: accounts}, account, func(c *Config) { c.SASL.Password = "wrong" })
	if got := wrong.sink.until(t, "login to the account bridge failed"); strings.Contains(got, "wrong") {
		t.Error(got)
	}
	without := start(t, noCaps, account)
	without.sink.until(t, "offers no SASL")
	if got := without.server.Lines("bridge"); slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "JOIN") }) {
		t.Errorf("%q", got)
	}
}

func TestPassword(t *testing.T) {
	f := start2(t, ircd.Options{Password: "open sesame"}, "open sesame")
	f.join("#c")
	wrong := start2(t, ircd.Options{Password: "open sesame"}, "wrong")
	if got := wrong.sink.until(t, "refuses the password"); strings.Contains(got, "wrong") {
		t.Error(got)
	}
}

// start2 is start without a witness, who has no password.
func start2(t *testing.T, opts ircd.Options, password string) *fixture {
	t.Helper()
	f := &fixture{t: t, server: startServer(t, opts), sink: newSink(), network: NewNetwork("")}
	f.network.config = testConfig(f.server.Addr())
	f.network.config.Password = password
	session, err := f.network.Open(t.Context(), &bridge.Login{ID: bridge.RelayLogin}, f.sink)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	f.session = session
	return f
}

func TestTLS_IsVerified(t *testing.T) {
	opts := ircd.Options{ListenTLS: []string{"127.0.0.1:0"}}
	server := startServer(t, opts)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, server.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		tls  TLS
		ok   bool
	}{
		{"unknown", TLS{Enabled: true}, false},
		{"known", TLS{Enabled: true, CAFile: file}, true},
		{"not asked for", TLS{Enabled: true, InsecureSkipVerify: true}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, n := newSink(), NewNetwork("")
			n.config = testConfig(server.TLSAddr())
			n.config.TLS = test.tls
			session, err := n.Open(t.Context(), &bridge.Login{ID: bridge.RelayLogin}, s)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close(context.Background())
			if !test.ok {
				s.until(t, "certificate")
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := session.(bridge.ChannelJoiner).JoinChannel(ctx, "#c"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCapabilities_ComeAndGo(t *testing.T) {
	f := joined(t, ircd.Options{Capabilities: []string{"cap-notify", "message-tags", "batch"}})
	if sent := f.mustSend(message("1")); len(sent.IDs) != 0 {
		t.Error(sent)
	}
	f.server.SetCapability("labeled-response", true)
	f.server.SetCapability("echo-message", true)
	for has := false; !has; time.Sleep(time.Millisecond) {
		s := f.session.(*session)
		s.mu.Lock()
		has = s.link.caps["echo-message"]
		s.mu.Unlock()
	}
	if sent := f.mustSend(message("2")); len(sent.IDs) != 1 {
		t.Error(sent)
	}
	f.server.SetCapability("labeled-response", false)
	f.mustSend(message("3"))
}
