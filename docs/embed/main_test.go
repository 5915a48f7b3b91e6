package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// chatServer is the other end: it takes one connection, the bridge's.
func chatServer(t *testing.T) (address string, lines <-chan string, say func(channel, name, text string)) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	received, connected := make(chan string, 16), make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		connected <- conn
		for scanner := bufio.NewScanner(conn); scanner.Scan(); {
			received <- scanner.Text()
		}
	}()
	var conn net.Conn
	return listener.Addr().String(), received, func(channel, name, text string) {
		if conn == nil {
			conn = <-connected
			t.Cleanup(func() { conn.Close() })
		}
		fmt.Fprintf(conn, "%s\t%s\t%s\n", channel, name, text)
	}
}

func TestEmbed_MessagesCrossBothWays(t *testing.T) {
	ctx, cancel := bridgetest.Timeout()
	defer cancel()
	address, lines, say := chatServer(t)
	hs := bridgetest.NewHomeserver(t)
	alice := hs.User("alice")
	room, err := alice.CreateRoom(ctx, bridgetest.RoomOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := bridgetest.StartBridge(t, hs, &network{Address: address})
	if err := alice.Invite(ctx, room, b.BotID()); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.WaitFor(ctx, room, bridgetest.Member(b.BotID(), "join")); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.SendText(ctx, room, "!line plumb lobby"); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.WaitFor(ctx, room, bridgetest.Message(b.BotID(), "This room is now connected to lobby on Linechat.")); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.SendText(ctx, room, "hello, lines"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-lines, "lobby\talice\thello, lines"; got != want {
		t.Errorf("the chat server got %q, want %q", got, want)
	}
	say("lobby", "bob", "hello, Matrix")
	if _, err := alice.WaitFor(ctx, room, bridgetest.Message(id.NewUserID("line_bob", hs.Domain()), "hello, Matrix")); err != nil {
		t.Error(err)
	}
}

func TestEmbed_Validate_NamesTheMistake(t *testing.T) {
	problems := (&network{Address: "nowhere"}).Validate()
	if len(problems) != 1 || problems[0].Path != "address" {
		t.Errorf("got %v, want one problem with the address", problems)
	}
	var _ bridge.Configurable = (*network)(nil)
}

// The README shows this bridge; it must be this bridge, and stay under 100 lines.
func TestEmbed_READMEShowsThisProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("README.md does not show docs/embed/main.go as it is; run `make readme`")
	}
	if n := strings.Count(string(program), "\n"); n >= 100 {
		t.Errorf("the smallest bridge has %d lines", n)
	}
}
