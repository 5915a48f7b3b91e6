package bridge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/internal/ports"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// media runs the command media on the bridge's database, which the bridge holds meanwhile.
func (c *crossing) media(status int, args ...string) string {
	c.Helper()
	cfg := c.b.Config
	config := filepath.Join(c.TempDir(), "config.yaml")
	text := fmt.Sprintf("homeserver: {address: %q, domain: %q}\ndatabase: %q\nmedia: {listen: %q, public_url: %q}\n",
		cfg.Homeserver.Address, cfg.Homeserver.Domain, cfg.Database, cfg.Media.Listen, cfg.Media.PublicURL)
	c.ok(os.WriteFile(config, []byte(text), 0o600))
	var both bytes.Buffer
	got := bridge.RunCommand(c.net, append([]string{"media"}, append(args, "-config", config)...), nil, nil, &both, &both)
	if got != status {
		c.Errorf("media %q ended with %d, want %d:\n%s", args, got, status, both.String())
	}
	return both.String()
}

// photo sends a photo and gives its link.
func (c *crossing) photo(name string) (event string, link string) {
	c.Helper()
	before := len(c.net.Sent())
	sent := must(c.alice.SendImage(c.ctx, c.room, name, "image/png", append([]byte("\x89PNG\r\n\x1a\n"), name...)))(c.T)
	c.ok(c.net.Wait(c.ctx, "the photo", func() bool { return len(c.net.Sent()) == before+1 }))
	return string(sent), c.net.Sent()[before].Media.URL
}

func (c *crossing) answers(url string, want int) {
	c.Helper()
	if status, _ := get(c.T, url); status != want {
		c.Errorf("the link answers %d, want %d", status, want)
	}
}

// becomes waits for what another process did to be obeyed.
func (c *crossing) becomes(url string, want int) {
	c.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		status, _ := get(c.T, url)
		if status == want {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("the link answers %d, want %d", status, want)
		}
	}
}

func TestMedia_LinksBesideARunningBridge_AreListedRevokedAndMadeAgain(t *testing.T) {
	onEngines(t, func(c *crossing) {
		first, link := c.photo("first.png")
		_, other := c.photo("other.png")
		var listed struct{ ID, Size int64 }
		lines := strings.SplitN(c.media(0, "list", "-event", first, "-json"), "\n", 2)
		c.ok(json.Unmarshal([]byte(lines[0]), &listed))
		table := c.media(0, "list", "-sender", string(c.alice.ID()))
		for _, want := range []string{"first.png", "other.png", "live", string(c.room), string(c.alice.ID()), "mxc://"} {
			if !strings.Contains(table, want) {
				c.Errorf("the list does not say %q:\n%s", want, table)
			}
		}
		if token := strings.Split(link, "/")[4]; strings.Contains(table, token) {
			c.Error("the list has the links themselves")
		}
		if out := c.media(0, "sign", fmt.Sprint(listed.ID)); !strings.Contains(out, strings.Split(link, "/")[4]) || !strings.Contains(out, "1 link worked before") {
			c.Errorf("of a link that works: %s", out)
		}
		c.media(0, "revoke", fmt.Sprint(listed.ID))
		c.answers(link, http.StatusGone)
		c.answers(other, http.StatusOK)
		out := c.media(0, "sign", fmt.Sprint(listed.ID))
		if strings.Contains(out, "worked before") {
			c.Errorf("of a link that was revoked: %s", out)
		}
		again := regexp.MustCompile(`http\S+`).FindString(out)
		c.answers(again, http.StatusOK)
		c.answers(link, http.StatusGone)
		for _, by := range [][]string{{"-room", string(c.room)}, {"-sender", string(c.alice.ID())}, {"-event", first}, {"-all", "-yes"}} {
			again := regexp.MustCompile(`http\S+`).FindString(c.media(0, "sign", "-event", first))
			c.answers(again, http.StatusOK)
			time.Sleep(2 * time.Millisecond) // times are kept in milliseconds
			c.media(0, append([]string{"revoke"}, by...)...)
			c.answers(again, http.StatusGone)
		}
		// The bridge was not fenced.
		c.says("still there")
		c.arrives("still there")
	})
}

func TestMedia_RedactedMessage_GetsNoNewLink(t *testing.T) {
	c := newCrossing(t)
	event, link := c.photo("photo.png")
	must(c.alice.Redact(c.ctx, c.room, id.EventID(event), ""))(t)
	c.becomes(link, http.StatusGone)
	if out := c.media(1, "sign", "-event", event); !strings.Contains(out, "was deleted") || strings.Contains(out, "http") {
		t.Error(out)
	}
}

func TestMedia_KeysBesideARunningBridge_AreRotatedAndRetired(t *testing.T) {
	onEngines(t, func(c *crossing) {
		_, link := c.photo("photo.png")
		if out := c.media(0, "keys", "list"); !strings.Contains(out, "signs") {
			c.Error(out)
		}
		if out := c.media(0, "keys", "rotate"); !strings.Contains(out, "Key 2") {
			c.Error(out)
		}
		c.answers(link, http.StatusOK)
		_, second := c.photo("second.png") // by key 1 still: key 2 is too young
		c.media(0, "keys", "retire", "1")
		c.answers(link, http.StatusNotFound)
		c.answers(second, http.StatusNotFound)
		_, third := c.photo("third.png")
		c.answers(third, http.StatusOK)
		if out := c.media(1, "keys", "retire", "1"); !strings.Contains(out, "no key 1 that is not retired") {
			c.Error(out)
		}
		if out := c.media(0, "keys", "list"); !strings.Contains(out, "retired") || strings.Count(out, "\n") != 3 {
			c.Error(out)
		}
	})
}

func TestMedia_MistakesInTheCommandLine_AreNamed(t *testing.T) {
	c := newCrossing(t)
	for _, m := range []struct {
		args []string
		want string
	}{
		{[]string{"revoke"}, "say which"}, {[]string{"revoke", "-all"}, "-all -yes"}, {[]string{"revoke", "x"}, "not the ID"},
		{[]string{"revoke", "1", "-room", "!a"}, "one of"}, {[]string{"revoke", "-room", "#a:b"}, "begins with !"}, {[]string{"revoke", "-sender", "alice"}, "begins with @"},
		{[]string{"revoke", "-mxc", "https://x"}, "mxc://server/id"}, {[]string{"sign"}, "say which"}, {[]string{"sign", "1", "-room", "!a"}, "say which"},
		{[]string{"list", "-limit", "0"}, "-limit"}, {[]string{"keys", "retire"}, "say which"}, {[]string{"keys", "retire", "300"}, "up to 255"}, {[]string{"kyes"}, "write keys"},
	} {
		if out := c.media(2, m.args...); !strings.Contains(out, m.want) {
			t.Errorf("%q does not say %q:\n%s", m.args, m.want, out)
		}
	}
	if out := c.media(1, "sign", "999"); !strings.Contains(out, "no link 999") {
		t.Error(out)
	}
	if out := c.media(1, "revoke", "999"); !strings.Contains(out, "no link 999") {
		t.Error(out)
	}
	if out := c.media(0, "revoke", "-room", "!nowhere:x"); !strings.Contains(out, "no such link in the store works") {
		t.Error(out)
	}
	if out := c.media(0, "list", "-room", "!nowhere:x"); !strings.Contains(out, "no such links") {
		t.Error(out)
	}
}

// Two proxies of their own, as behind a load balancer, answer the links of a bridge that answers none itself.
func TestProxy25_ProcessesOfTheirOwn_AnswerTheBridgesLinks(t *testing.T) {
	run := func(c *crossing) {
		registration := must(appservice.LoadRegistration(c.b.Config.Appservice.Registration))(c.T)
		event, link := c.photo("photo.png")
		var links []string
		for range 2 {
			address, release, err := ports.Reserve()
			c.ok(err)
			c.Cleanup(release)
			cfg := *c.b.Config
			cfg.Media.Listen, cfg.Media.Cache, cfg.Metrics.Listen = address, filepath.Join(c.TempDir(), "cache"), ""
			ctx, stop := context.WithCancel(c.ctx)
			ended := make(chan error, 1)
			go func() { ended <- bridge.RunProxy(ctx, &cfg, registration.ASToken) }()
			c.Cleanup(func() {
				stop()
				if err := <-ended; err != nil {
					c.Error(err)
				}
			})
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				if conn, err := net.Dial("tcp", address); err == nil {
					conn.Close()
					break
				}
			}
			links = append(links, strings.Replace(link, "media.example", address, 1))
			if err := bridge.RunProxy(c.ctx, &cfg, registration.ASToken); err == nil || !strings.Contains(err.Error(), "name an address with -listen") {
				c.Errorf("a second proxy on the same address: %v", err)
			}
		}
		for _, link := range links {
			c.answers(link, http.StatusOK)
			at, _, _ := strings.Cut(strings.TrimPrefix(link, "http://"), "/")
			c.answers("http://"+at+"/_matrix/app/v1/ping", http.StatusNotFound)
		}
		must(c.alice.Redact(c.ctx, c.room, id.EventID(event), ""))(c.T)
		for _, link := range links {
			c.becomes(link, http.StatusGone)
		}
		c.says("the bridge was not fenced")
		c.arrives("the bridge was not fenced")
	}
	apart := func(cfg *bridge.Config) { cfg.Media.Listen, cfg.Media.PublicURL = "", "http://media.example" }
	t.Run("SQLite", func(t *testing.T) { run(newCrossing(t, apart)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		server := storetest.PostgresServer(t)
		run(newCrossing(t, apart, func(cfg *bridge.Config) { cfg.Database = server(t) }))
	})
}
