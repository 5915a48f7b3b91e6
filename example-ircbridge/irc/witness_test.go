package irc

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

// witness is a bare IRC user.
type witness struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
	seen []string
}

func newWitness(t *testing.T, server *ircd.Server, nick string) *witness {
	t.Helper()
	var conn net.Conn
	if server.Addr() == "" {
		conn = piped(server)
	} else {
		var err error
		if conn, err = net.Dial("tcp", server.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { conn.Close() })
	w := &witness{t: t, conn: conn, in: bufio.NewScanner(conn)}
	w.send("CAP REQ :message-tags", "NICK "+nick, "USER "+nick+" 0 * :"+nick, "CAP END")
	w.until(" 376 ")
	return w
}

func (w *witness) send(lines ...string) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.conn, "%s\r\n", strings.Join(lines, "\r\n")); err != nil {
		w.t.Fatal(err)
	}
}

// until reads up to a line that contains the text, and returns it.
func (w *witness) until(text string) string {
	w.t.Helper()
	_ = w.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for w.in.Scan() {
		line := w.in.Text()
		w.seen = append(w.seen, line)
		if strings.HasPrefix(line, "PING") {
			w.send("PONG x")
		}
		if strings.Contains(line, text) {
			return line
		}
	}
	w.t.Fatalf("the link ended (%v) before %q came; this did:\n%s", w.in.Err(), text, strings.Join(w.seen, "\n"))
	return ""
}

// sync waits until the server has acted on all that the witness sent.
func (w *witness) sync() {
	w.t.Helper()
	w.send("PING sync")
	w.until("PONG")
}
