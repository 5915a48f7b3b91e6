package ircd

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, opts Options) *Server {
	t.Helper()
	s, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// user is a bare link for tests.
type user struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

func dial(t *testing.T, s *Server) *user {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &user{t, conn, bufio.NewScanner(conn)}
}

func join(t *testing.T, s *Server, nick, caps string) *user {
	t.Helper()
	u := dial(t, s)
	if caps != "" {
		u.send("CAP LS 302", "CAP REQ :"+caps)
	}
	u.send("NICK "+nick, "USER "+nick+" 0 * :"+nick)
	if caps != "" {
		u.send("CAP END")
	}
	u.until(" 376 ")
	return u
}

func (u *user) send(lines ...string) {
	u.t.Helper()
	if _, err := fmt.Fprintf(u.conn, "%s\r\n", strings.Join(lines, "\r\n")); err != nil {
		u.t.Fatal(err)
	}
}

// until reads up to a line that contains the text, and returns it.
func (u *user) until(text string) string {
	u.t.Helper()
	_ = u.conn.SetReadDeadline(time.Now().Add(time.Minute))
	for u.in.Scan() {
		if strings.Contains(u.in.Text(), text) {
			return u.in.Text()
		}
	}
	u.t.Fatalf("the link ended (%v) before %q came", u.in.Err(), text)
	return ""
}

func TestMessage_ReachesTheOthersInTheChannel(t *testing.T) {
	s := start(t, Options{})
	a, b := join(t, s, "alice", ""), join(t, s, "bob", "")
	a.send("JOIN #c")
	a.until(" 366 ")
	b.send("JOIN #C")
	b.until(" 366 ")
	a.until("JOIN #c")
	b.send("PRIVMSG #c :hello  world")
	if got := a.until("PRIVMSG"); got != ":bob!~bob@127.0.0.1 PRIVMSG #c :hello  world" {
		t.Error(got)
	}
	if got := s.Members("#c"); strings.Join(got, " ") != "alice bob" {
		t.Error(got)
	}
}

func TestLabel_OneResponse_Several_None(t *testing.T) {
	s := start(t, Options{})
	a := join(t, s, "alice", "labeled-response batch echo-message message-tags server-time")
	a.send("JOIN #c")
	a.until(" 366 ")
	a.send("@label=1 PRIVMSG #c :hi")
	if got := a.until("label=1"); !strings.Contains(got, "PRIVMSG #c") || !strings.Contains(got, "msgid=") || !strings.Contains(got, "time=") {
		t.Error(got)
	}
	a.send("@label=2 PONG x", "@label=3 AWAY", "@label=4 WHOIS alice", "@label=5 PRIVMSG nobody :x")
	a.until("label=3")
	if got := a.until("label=4"); !strings.Contains(got, "BATCH +") {
		t.Error(got)
	}
	a.until("BATCH -")
	if got := a.until("label=5"); !strings.Contains(got, " 401 ") {
		t.Error(got)
	}
}

func TestChannel_RefusesByNumeric(t *testing.T) {
	s := start(t, Options{ChannelLen: 20})
	op, guest := join(t, s, "op", ""), join(t, s, "guest", "")
	op.send("JOIN #c")
	op.until(" 366 ")
	for _, test := range []struct{ mode, undo, try, numeric string }{
		{"+i", "-i", "JOIN #c", " 473 "},
		{"+k secret", "-k secret", "JOIN #c", " 475 "},
		{"+b guest!*@*", "-b guest!*@*", "JOIN #c", " 474 "},
		{"+l 1", "-l", "JOIN #c", " 471 "},
		{"+n", "-n", "PRIVMSG #c :x", " 404 "},
		{"+m-n", "-m+n", "PRIVMSG #c :x", " 404 "},
	} {
		op.send("MODE #c "+test.mode, "PING x")
		op.until("PONG")
		guest.send(test.try)
		guest.until(test.numeric)
		op.send("MODE #c "+test.undo, "PING x")
		op.until("PONG")
	}
	guest.send("JOIN #c,nochannel,#" + strings.Repeat("x", 30))
	guest.until(" 366 ")
	guest.until(" 403 ")
	guest.until(" 403 ")
	guest.send("TOPIC #c :mine", "KICK #c op", "MODE #c +m", "TOPIC #d", "NICK 1bad", "NICK op", "BOGUS", "JOIN", "TAGMSG #c")
	for _, numeric := range []string{" 482 ", " 482 ", " 482 ", " 403 ", " 432 ", " 433 ", " 421 BOGUS", " 461 JOIN", " 421 TAGMSG"} {
		if strings.HasPrefix(numeric, " 421 ") || strings.HasPrefix(numeric, " 461 ") {
			numeric = strings.Replace(numeric, " 4", " 4", 1)
			numeric = numeric[:4] + " guest" + numeric[4:]
		}
		guest.until(numeric)
	}
}

func TestFlood_ClosesTheLink(t *testing.T) {
	s := start(t, Options{Flood: Flood{Burst: 5, Interval: time.Hour}})
	a := join(t, s, "alice", "")
	for range 7 {
		a.send("PING x")
	}
	a.until("Excess Flood")
}

func TestLine_OverTheLimit_IsCut(t *testing.T) {
	s := start(t, Options{})
	a, b := join(t, s, "alice", ""), join(t, s, "bob", "")
	a.send("PRIVMSG bob :" + strings.Repeat("é", 400))
	got := b.until("PRIVMSG")
	if len(got)+2 > 512 || !strings.HasSuffix(got, "é") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func TestCapabilities_None_CAPIsUnknown(t *testing.T) {
	s := start(t, Options{Capabilities: []string{}})
	a := dial(t, s)
	a.send("CAP LS 302", "NICK alice", "USER alice 0 * :x")
	a.until(" 421 ")
	a.until(" 001 ")
}

func TestSASL_PLAIN(t *testing.T) {
	s := start(t, Options{Accounts: map[string]string{"bridge": "secret"}})
	a := dial(t, s)
	a.send("CAP LS 302")
	if got := a.until("CAP"); !strings.Contains(got, "sasl=PLAIN") {
		t.Error(got)
	}
	a.send("CAP REQ :sasl", "AUTHENTICATE PLAIN", "AUTHENTICATE "+base64.StdEncoding.EncodeToString([]byte("\x00bridge\x00wrong")))
	a.until(" 904 ")
	a.send("AUTHENTICATE PLAIN", "AUTHENTICATE "+base64.StdEncoding.EncodeToString([]byte("\x00bridge\x00secret")))
	a.until(" 903 ")
	a.send("NICK alice", "USER alice 0 * :x", "CAP END")
	a.until(" 001 ")
}

func TestTLS_WithItsOwnCertificate(t *testing.T) {
	s := start(t, Options{ListenTLS: []string{"127.0.0.1:0"}})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CertificatePEM())
	conn, err := tls.Dial("tcp", s.TLSAddr(), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	u := &user{t, conn, bufio.NewScanner(conn)}
	u.send("NICK alice", "USER alice 0 * :x")
	u.until(" 001 ")
}

func TestMonitor_TellsComingAndGoing(t *testing.T) {
	s := start(t, Options{})
	a := join(t, s, "alice", "")
	a.send("MONITOR + bob")
	a.until(" 731 ")
	join(t, s, "bob", "")
	a.until(" 730 ")
	s.Disconnect("bob")
	a.until(" 731 ")
}

func TestHold_KeepsLinesUntilItGoesOn(t *testing.T) {
	s := start(t, Options{})
	a := join(t, s, "alice", "")
	s.Hold("alice", true)
	a.send("PING held")
	for !strings.Contains(strings.Join(s.Lines("alice"), "\n"), "PING held") {
		time.Sleep(time.Millisecond)
	}
	s.Inject("alice", ":x NOTICE alice :first")
	s.Hold("alice", false)
	a.until("first")
	a.until("held")
}

func FuzzServer_AnyLine(f *testing.F) {
	f.Add("MODE #c +ovkl-b x y z")
	f.Add("@label=1;+x=\\s JOIN #a,#b k")
	f.Add("PRIVMSG @#c,#c,x,,y :")
	s, err := Start(Options{Capabilities: []string{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, line string) {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		c := newClient(s, there)
		c.writing = true // nothing is sent
		s.mu.Lock()
		defer s.mu.Unlock()
		c.run("NICK fuzz")
		c.run("USER fuzz 0 * :x")
		c.run("JOIN #c")
		c.caps["message-tags"], c.caps["labeled-response"], c.caps["batch"] = true, true, true
		c.run(line)
		c.quit("done")
		s.past = nil
	})
}
