package irc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

// received waits until the server has got a line with the text from the bridge.
func (f *fixture) received(text string) {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if f.got(text) {
			return
		}
	}
	f.t.Fatalf("the server never got %q, but\n%s", text, strings.Join(f.server.Lines("bridge"), "\n"))
}

func (f *fixture) got(text string) bool {
	return slices.ContainsFunc(f.server.Lines("bridge"), func(line string) bool { return strings.Contains(line, text) })
}

func TestReconnect_JoinsEverythingAgain(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": allCaps, "none": noCaps} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts)
			f.join("#d")
			for i := range 3 {
				f.server.Disconnect("bridge")
				f.witness.until("QUIT")
				f.witness.until("JOIN #c")
				f.mustSend(message(fmt.Sprint(i)))
				f.witness.until(fmt.Sprintf("<Alice> %d", i))
			}
			if got := f.server.Members("#d"); len(got) != 1 {
				t.Errorf("#d: %q", got)
			}
			f.witness.send("PRIVMSG #c :still here")
			f.sink.until(t, "still here")
		})
	}
}

// cut cuts the link, and waits until the session knows.
func (f *fixture) cut() {
	f.t.Helper()
	s := f.session.(*session)
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	f.server.Disconnect("bridge")
	<-l.ended
}

func TestSend_WhileDisconnected_SaysSoAtOnce_AndOnlineWhenInTheChannelAgain(t *testing.T) {
	f := joined(t, allCaps, func(c *Config) { c.Reconnect.First = 500 * time.Millisecond; c.Reconnect.Max = time.Second })
	f.sink.until(t, "online")
	f.cut()
	before := f.sink.count("online")
	_, err := f.session.Send(context.Background(), message("later"))
	if !errors.Is(err, bridge.ErrOffline) || bridge.IsPermanent(err) || bridge.IsInDoubt(err) {
		t.Fatalf("%v", err)
	}
	for f.sink.count("online") == before {
		time.Sleep(time.Millisecond)
	}
	if _, err := f.session.Send(f.ctx(), message("later")); err != nil {
		t.Error(err)
	}
	f.witness.until("<Alice> later")
}

func TestSend_NoServer_IsOffline_AndTheRoomsAreToldInOneText(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0) // as a load balancer without a server behind it
			_ = conn.Close()
		}
	}()
	n := NewNetwork("")
	n.config = testConfig(l.Addr().String())
	s := newSink()
	session, err := n.Open(t.Context(), &bridge.Login{ID: bridge.RelayLogin}, s)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(context.Background())
	for s.count(" warn IRC") < 5 {
		time.Sleep(time.Millisecond)
	}
	if _, err = session.Send(context.Background(), message("x")); !errors.Is(err, bridge.ErrOffline) {
		t.Errorf("%v", err)
	}
	s.mu.Lock()
	for _, line := range s.said {
		if strings.Contains(line, " warn ") && line != " warn IRC: no connection to 127.0.0.1. The bridge keeps trying." {
			t.Errorf("%q", line)
		}
	}
	s.mu.Unlock()
	s.until(t, "Connecting to 127.0.0.1")
}

func TestSend_LinkLostBeforeConfirmation_IsInDoubt(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": allCaps, "none": noCaps} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts)
			f.server.Hold("bridge", true)
			result := make(chan error, 1)
			go func() {
				_, err := f.session.Send(f.ctx(), message("doubtful"))
				result <- err
			}()
			f.received("doubtful")
			f.server.Disconnect("bridge")
			if err := <-result; !bridge.IsInDoubt(err) || bridge.IsPermanent(err) || strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("%v", err)
			}
			f.mustSend(message("after"))
			f.witness.until("<Alice> after")
		})
	}
}

func TestSend_ContextEndsBeforeConfirmation_IsInDoubt(t *testing.T) {
	f := joined(t, noCaps)
	f.server.Hold("bridge", true)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := f.session.Send(ctx, message("doubtful"))
		result <- err
	}()
	f.received("doubtful")
	cancel()
	if err := <-result; !bridge.IsInDoubt(err) {
		t.Errorf("%v", err)
	}
}

func TestSend_ContextEndsBeforeTheLineIsSent_IsTransient_AndNothingIsSent(t *testing.T) {
	f := joined(t, noCaps, func(c *Config) { c.Flood = Flood{Burst: 3, Interval: time.Minute} })
	// The three tokens went for JOIN, and for what follows at most: some message is left without one.
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := f.session.Send(ctx, message(fmt.Sprintf("text%d", i)))
		cancel()
		if i == 2 && (err == nil || bridge.IsInDoubt(err) || bridge.IsPermanent(err)) {
			t.Errorf("%v", err)
		}
	}
	if f.got("text2") {
		t.Error("it was sent")
	}
}

func TestSend_SeveralLines_LinkLostInTheMiddle_ConfirmedOnesAreNotRepeated(t *testing.T) {
	f := joined(t, allCaps, func(c *Config) { c.Flood = Flood{Burst: 3, Interval: 300 * time.Millisecond} })
	result := make(chan error, 1)
	go func() {
		_, err := f.session.Send(f.ctx(), message("one\ntwo\nthree\nfour"))
		result <- err
	}()
	f.witness.until("> one")
	f.server.Disconnect("bridge")
	err := <-result
	if err != nil && !bridge.IsInDoubt(err) {
		t.Fatal(err)
	}
	if err != nil {
		f.mustSend(message("one\ntwo\nthree\nfour"))
	}
	f.witness.until("> four")
	n := 0
	for _, line := range f.witness.seen {
		if strings.Contains(line, "> one") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the first line came %d times", n)
	}
}

func TestFlood_TheBucketIsObeyed_ByEveryLine(t *testing.T) {
	for name, caps := range map[string][]string{"all": nil, "none": {}} {
		t.Run(name, func(t *testing.T) {
			// The server's limit is only a little wider than ours.
			f := joined(t, ircd.Options{Capabilities: caps, Flood: ircd.Flood{Burst: 8, Interval: 20 * time.Millisecond}},
				func(c *Config) { c.Flood = Flood{Burst: 5, Interval: 22 * time.Millisecond} })
			done := make(chan error, 40)
			for i := range 40 {
				go func() {
					_, err := f.session.Send(f.ctx(), message(fmt.Sprintf("m%d", i)))
					done <- err
				}()
				f.server.Inject("bridge", "PING :now")
			}
			for range 40 {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			f.witness.sync()
			for _, line := range f.witness.seen {
				if strings.Contains(line, "Excess Flood") {
					t.Fatal(line)
				}
			}
		})
	}
}

func TestPing_SilentServer_IsLeft(t *testing.T) {
	f := joined(t, allCaps, func(c *Config) { c.Ping = Ping{Interval: 100 * time.Millisecond, Timeout: 200 * time.Millisecond} })
	f.server.Hold("bridge", true)
	f.witness.until("QUIT")
	f.mustSend(message("again"))
}

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

func TestJoin_Refused_IsPermanent_AndSaysWhatToDo(t *testing.T) {
	f := start(t, ircd.Options{ChannelLen: 20})
	f.witness.send("JOIN #c")
	f.witness.until(" 366 ")
	for mode, want := range map[string]string{"i": "/invite", "k key": "network.keys", "l 1": "full", "b bridge!*@*": "ban"} {
		f.witness.send("MODE #c +" + mode)
		f.witness.sync()
		err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#c")
		if passes := mode == "l 1"; bridge.IsPermanent(err) == passes || !strings.Contains(err.Error(), want) {
			t.Errorf("+%s: %v", mode, err)
		}
		f.witness.send("MODE #c -" + mode)
		f.witness.sync()
	}
	if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#"+strings.Repeat("x", 40)); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	f.join("#c")
}

func TestJoin_RefusedAfterReconnect_TheRoomIsTold(t *testing.T) {
	f := joined(t, noCaps)
	f.witness.send("MODE #c +i")
	f.witness.sync()
	f.cut()
	f.sink.until(t, "#c warn The bridge cannot join #c")
	if _, err := f.session.Send(f.ctx(), message("x")); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	f.witness.send("MODE #c -i")
	f.witness.sync()
	f.mustSend(message("let in"))
}

func TestJoin_WithAKey(t *testing.T) {
	f := start(t, noCaps, func(c *Config) { c.Keys = map[string]string{"#C": "sesame"} })
	f.witness.send("JOIN #c", "MODE #c +k sesame")
	f.witness.sync()
	f.join("#c")
}

func TestJoin_TwoNamesOfOneChannel_TheSecondIsRefused(t *testing.T) {
	f := start(t, allCaps)
	f.join("#a[1]")
	if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#a{1}"); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	ascii := start(t, ircd.Options{CaseMapping: "ascii"})
	ascii.join("#a[1]")
	ascii.join("#a{1}")
	f.witness.send("JOIN #A{1}", "PRIVMSG #A{1} :hi")
	f.sink.until(t, "#a[1] text witness: hi")
}

func TestKick_NoRejoin_UntilAskedTo(t *testing.T) {
	f := joined(t, allCaps)
	f.witness.send("KICK #c bridge :enough")
	f.sink.until(t, "#c warn The bridge was kicked from #c on IRC by witness (enough)")
	if _, err := f.session.Send(f.ctx(), message("x")); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	f.join("#d")
	f.cut()
	msg := message("elsewhere")
	msg.Channel = "#d"
	f.mustSend(msg)
	if got := f.server.Members("#c"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	f.join("#c")
	f.mustSend(message("back"))
}

func TestLeave_PartsAndForgets(t *testing.T) {
	f := joined(t, allCaps)
	if err := f.session.(bridge.ChannelJoiner).LeaveChannel(f.ctx(), "#c"); err != nil {
		t.Fatal(err)
	}
	f.witness.until("PART #c")
	f.join("#d")
	f.cut()
	msg := message("x")
	msg.Channel = "#d"
	f.mustSend(msg)
	if got := f.server.Members("#c"); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestBan_StopsForGood_AndSaysSo(t *testing.T) {
	f := joined(t, allCaps)
	f.server.Ban("bridge", "no bridges here")
	f.sink.until(t, "banned the bridge. ")
	_, err := f.session.Send(f.ctx(), message("x"))
	if !bridge.IsPermanent(err) || !strings.Contains(err.Error(), "banned") || f.sink.count("no bridges here") != 1 || f.sink.count("log") == 0 {
		t.Errorf("%v", err)
	}
	if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#d"); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if got := f.server.Nicks(); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestBan_InTheERRORAlone_StopsForGood(t *testing.T) {
	f := joined(t, noCaps)
	f.server.Inject("bridge", "ERROR :Closing Link: bridge[127.0.0.1] (K-Lined: no bridges)")
	f.sink.until(t, "stays away until it is started again")
	if _, err := f.session.Send(f.ctx(), message("x")); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestIsBan(t *testing.T) {
	for text, want := range map[string]bool{
		"Closing Link: x (K-Lined)": true, "Closing Link: x (K-line: bad)": true, "G-Lined: go": true, "Z:lined": true,
		"You are banned": true, "AKILLed": true, "Closing Link: x (Ping timeout)": false, "kline": true,
		"Closing Link: x (Excess Flood)": false, "unbanned": false, "Closing Link: x (Quit: dkliner)": false,
	} {
		if got := isBan(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
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

func TestDeliver_AgainUntilItIsKept_InOrder(t *testing.T) {
	f := joined(t, allCaps)
	f.sink.until(t, "members")
	var failures atomic.Int32
	f.sink.fail = func(in *bridge.Incoming) error {
		if in.Text != nil && in.Text.Body == "nowhere" {
			return fmt.Errorf("taking it: %w", bridge.ErrNoPortal)
		}
		if failures.Add(1) <= 2 {
			return errors.New("the disk is full")
		}
		return nil
	}
	f.witness.send("PRIVMSG #c :nowhere", "PRIVMSG #c :first", "PRIVMSG #c :second")
	f.sink.until(t, "second")
	if f.sink.count("first") != 1 || f.sink.count("nowhere") != 0 || f.sink.said[len(f.sink.said)-2] != "#c text witness: first" {
		t.Errorf("%q", f.sink.said)
	}
}

func TestDeliver_SlowSink_HoldsTheReaderBack_AndLosesNothing(t *testing.T) {
	f := joined(t, noCaps)
	f.sink.until(t, "members")
	gate := make(chan struct{})
	f.sink.fail = func(*bridge.Incoming) error { <-gate; return nil }
	const n = 3 * outletSize
	for i := range n {
		f.witness.send(fmt.Sprintf("PRIVMSG #c :m%d.", i))
	}
	f.witness.sync()
	close(gate)
	f.sink.until(t, fmt.Sprintf("m%d.", n-1))
	if got := f.sink.count("#c text"); got != n {
		t.Errorf("%d of %d", got, n)
	}
}

func TestClose_DeliversWhatHasComeIn(t *testing.T) {
	f := joined(t, noCaps)
	f.sink.until(t, "members")
	gate := make(chan struct{})
	f.sink.fail = func(*bridge.Incoming) error { <-gate; return nil }
	f.witness.send("PRIVMSG #c :one", "PRIVMSG #c :two")
	f.witness.sync()
	for f.session.(*session).out.waiting.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	closed := make(chan error, 1)
	go func() { closed <- f.session.Close(f.ctx()) }()
	f.witness.until("QUIT")
	close(gate)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if f.sink.count("text") != 2 {
		t.Errorf("%q", f.sink.said)
	}
	if _, err := f.session.Send(f.ctx(), message("x")); err == nil || bridge.IsPermanent(err) || bridge.IsInDoubt(err) {
		t.Errorf("%v", err)
	}
}

func TestClose_ContextEnds_SaysWhatIsLeft(t *testing.T) {
	f := joined(t, noCaps)
	f.sink.until(t, "members")
	f.sink.fail = func(*bridge.Incoming) error { return errors.New("never") }
	f.witness.send("PRIVMSG #c :one")
	f.witness.sync()
	for f.session.(*session).out.waiting.Load() < 1 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := f.session.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 events were not delivered") {
		t.Errorf("%v", err)
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
