package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"image"
	"image/png"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/example-ircbridge/irc"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

const (
	channel      = "#crossing"
	linkPassword = "link-password-of-the-test"
	saslPassword = "sasl-password-of-the-test"
)

// crossing is the IRC bridge between a homeserver and an IRC server, with alice in a room and bob in a channel.
type crossing struct {
	*testing.T
	ctx   context.Context
	hs    *bridgetest.Homeserver
	b     *bridgetest.Bridge
	alice *bridgetest.User
	room  id.RoomID
	bob   net.Conn
	lines *bufio.Scanner // what bob reads
	log   string         // path of the bridge's log, of everything
}

func newCrossing(t *testing.T) *crossing {
	t.Helper()
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	server, err := ircd.Start(ircd.Options{
		Password: linkPassword, Accounts: map[string]string{"trestle": saslPassword}, ListenTLS: []string{"127.0.0.1:0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	network := irc.NewNetwork("test")
	settings := network.Config().(*irc.Config)
	settings.Address, settings.TLS.Enabled, settings.TLS.InsecureSkipVerify = server.TLSAddr(), true, true
	settings.Password, settings.SASL = linkPassword, irc.SASL{Mechanism: "PLAIN", Account: "trestle", Password: saslPassword}
	settings.Flood.Burst = 1000

	c := &crossing{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t), log: filepath.Join(t.TempDir(), "bridge.log")}
	c.alice = c.hs.User("alice")
	c.room, err = c.alice.CreateRoom(ctx, bridgetest.RoomOptions{})
	c.ok(err)
	c.b = bridgetest.StartBridge(t, c.hs, network, func(cfg *bridge.Config) { cfg.Log.Level, cfg.Log.File = "trace", c.log })
	c.ok(c.alice.Invite(ctx, c.room, c.b.BotID()))
	c.sees(bridgetest.Member(c.b.BotID(), "join"))

	c.bob, err = (&net.Dialer{}).DialContext(ctx, "tcp", server.Addr())
	c.ok(err)
	t.Cleanup(func() { _ = c.bob.Close() })
	deadline, _ := ctx.Deadline()
	c.ok(c.bob.SetDeadline(deadline))
	c.lines = bufio.NewScanner(c.bob)
	c.types("PASS " + linkPassword + "\r\nNICK bob\r\nUSER bob 0 * :Bob\r\nJOIN " + channel)
	c.reads(" 366 ")
	_, err = c.alice.SendText(ctx, c.room, "!irc plumb "+channel)
	c.ok(err)
	c.sees(func(e bridgetest.Event) bool {
		return e.Sender == c.b.BotID() && strings.Contains(e.Body(), "now connected")
	})
	return c
}

func (c *crossing) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *crossing) sees(match func(bridgetest.Event) bool) bridgetest.Event {
	c.Helper()
	ev, err := c.alice.WaitFor(c.ctx, c.room, match)
	c.ok(err)
	return ev
}

func (c *crossing) says(text string) {
	c.Helper()
	_, err := c.alice.SendText(c.ctx, c.room, text)
	c.ok(err)
}

func (c *crossing) types(line string) {
	c.Helper()
	_, err := fmt.Fprintf(c.bob, "%s\r\n", line)
	c.ok(err)
}

// reads waits for a line that bob gets with text in it.
func (c *crossing) reads(text string) string {
	c.Helper()
	for c.lines.Scan() {
		if strings.Contains(c.lines.Text(), text) {
			return c.lines.Text()
		}
	}
	c.Fatalf("bob never read %q: %v", text, c.lines.Err())
	return ""
}

func TestA26_HundredMessages_KeepTheirOrderOnIRC(t *testing.T) {
	c := newCrossing(t)
	for i := range 100 {
		c.says(fmt.Sprintf("line %03d.", i))
	}
	for i := range 100 {
		if line := c.reads("line "); !strings.HasSuffix(line, fmt.Sprintf("line %03d.", i)) {
			t.Fatalf("bob read %q as line %d", line, i)
		}
	}
}

// Everything that the bridge can do is done once, with the log at its most talkative, and then the log is searched.
func TestF2_LogOfAWholeCrossing_HoldsNoSecret(t *testing.T) {
	c := newCrossing(t)
	reg, err := appservice.LoadRegistration(c.b.Config.Appservice.Registration)
	c.ok(err)

	c.says("to IRC")
	c.reads("to IRC")
	c.types("PRIVMSG " + channel + " :to Matrix")
	bob := c.b.GhostID(bridge.RemoteUser{ID: "bob"})
	c.sees(bridgetest.Message(bob, "to Matrix"))
	var photo bytes.Buffer
	c.ok(png.Encode(&photo, image.NewGray(image.Rect(0, 0, 3, 3))))
	_, err = c.alice.SendImage(c.ctx, c.room, "photo.png", "image/png", photo.Bytes())
	c.ok(err)
	link := regexp.MustCompile(`http://\S+`).FindString(c.reads("photo.png"))
	at, err := url.Parse(link)
	c.ok(err)
	mac := strings.Split(at.Path, "/")[2]
	for _, request := range []string{link, strings.Replace(link, mac, mac[:len(mac)-1]+"_", 1)} { // a good link, and one that was tampered with
		resp, err := http.Get(request)
		c.ok(err)
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	c.ok(c.alice.Typing(c.ctx, c.room, true))
	_, err = c.alice.SetTopic(c.ctx, c.room, "a topic")
	c.ok(err)
	for _, auth := range []string{"", "Bearer guessed-wrongly", "Bearer " + reg.HSToken} { // what others may ask of it
		for _, path := range []string{"/_matrix/app/v1/transactions/x?access_token=" + reg.HSToken, "/_matrix/app/v1/nowhere?access_token=" + reg.HSToken} {
			req, err := http.NewRequestWithContext(c.ctx, http.MethodPut, c.b.Config.Appservice.Address+path, strings.NewReader("nonsense"))
			c.ok(err)
			req.Header.Set("Authorization", auth)
			resp, err := http.DefaultClient.Do(req)
			c.ok(err)
			_ = resp.Body.Close()
		}
	}
	http.DefaultClient.CloseIdleConnections()
	c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: regexp.MustCompile("/send/"), Status: 500}) // so that errors are logged, too
	c.hs.Fault(bridgetest.Fault{Method: http.MethodPut, Path: regexp.MustCompile("/send/"), Drop: true})
	c.types("PRIVMSG " + channel + " :in spite of faults")
	c.sees(bridgetest.Message(bob, "in spite of faults"))
	c.b.Stop()
	c.b.Start()
	c.says("after a restart")
	c.reads("after a restart")
	c.b.Stop()

	data, err := os.ReadFile(c.log)
	c.ok(err)
	log := string(data)
	for _, level := range []string{"debug", "info", "warn"} {
		if !strings.Contains(log, `"level":"`+level+`"`) {
			t.Errorf("the log has nothing of level %s, so not everything was written:\n%s", level, log)
		}
	}
	for what, secret := range map[string]string{
		"the as_token": reg.ASToken, "the hs_token": reg.HSToken, "alice's token": c.alice.Token(), "a guessed token": "guessed-wrongly",
		"the IRC server's password": linkPassword, "the account's password": saslPassword,
		"the account's password in base64": base64.StdEncoding.EncodeToString([]byte("trestle\x00trestle\x00" + saslPassword)),
		"the token of a media link":        mac, "that of a link that was tampered with": mac[:len(mac)-1] + "_",
	} {
		for line := range strings.Lines(log) {
			if strings.Contains(line, secret) {
				t.Errorf("%s is in the log: %s", what, line)
				break
			}
		}
	}
	for _, secret := range []string{reg.ASToken, reg.HSToken, "access_token"} {
		if strings.Contains(link, secret) {
			t.Errorf("the media link %s has a token in it", link)
		}
	}
}
