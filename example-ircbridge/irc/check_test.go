package irc

import (
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

func TestCheckConnection_SaysWhetherTheNetworkLetsTheBridgeIn(t *testing.T) {
	server, err := ircd.Start(ircd.Options{Password: "sesame"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	check := func(change func(*Config)) error {
		n := NewNetwork("test")
		config := n.Config().(*Config)
		config.Address, config.TLS.Enabled, config.Password = server.Addr(), false, "sesame"
		change(config)
		return n.CheckConnection(t.Context())
	}
	if err := check(func(*Config) {}); err != nil {
		t.Errorf("the right configuration: %v", err)
	}
	if lines := server.Lines(defaultConfig().Nick); len(lines) != 0 {
		t.Errorf("the check took the bridge's nick: %q", lines)
	}
	eventually(t, "the check is gone from the server", func() bool { return len(server.Nicks()) == 0 })
	for name, change := range map[string]func(*Config){
		"a wrong password":    func(c *Config) { c.Password = "simsala" },
		"nobody at that port": func(c *Config) { c.Address = "127.0.0.1:1" },
		"TLS to a plain port": func(c *Config) { c.TLS.Enabled, c.Reconnect.Timeout = true, 500*time.Millisecond },
	} {
		err := check(change)
		if err == nil || strings.Contains(err.Error(), "keeps trying") || strings.Contains(err.Error(), "simsala") {
			t.Errorf("%s: %v", name, err)
		} else if name == "nobody at that port" && !strings.HasSuffix(err.Error(), "(nothing listens there: network.address)") ||
			name == "TLS to a plain port" && !strings.HasSuffix(err.Error(), "network.tls)") {
			t.Errorf("%s: the mend is missing: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}
