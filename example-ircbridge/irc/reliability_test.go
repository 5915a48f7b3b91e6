package irc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
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
	withoutDelay(t, sendsWhileDisconnected)
}

func sendsWhileDisconnected(t *testing.T) {
	f := joined(t, piping(allCaps), func(c *Config) { c.Reconnect.First = 500 * time.Millisecond; c.Reconnect.Max = time.Second })
	f.cut()
	synctest.Wait() // for what the sink is still to be told
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
	withoutDelay(t, sendsNothingInTime)
}

func sendsNothingInTime(t *testing.T) {
	f := joined(t, piping(noCaps), func(c *Config) { c.Flood = Flood{Burst: 3, Interval: time.Minute} })
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
	withoutDelay(t, sendsTheRestOverTheNextLink)
}

func sendsTheRestOverTheNextLink(t *testing.T) {
	f := joined(t, piping(allCaps), func(c *Config) { c.Flood = Flood{Burst: 3, Interval: 300 * time.Millisecond} })
	result := make(chan error, 1)
	go func() {
		_, err := f.session.Send(f.ctx(), message("one\ntwo\nthree\nfour"))
		result <- err
	}()
	f.witness.until("> one")
	synctest.Wait() // what has left is confirmed, and no time passes in which more could leave
	if f.got("four") {
		t.Fatal("all has left already")
	}
	f.server.Disconnect("bridge")
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	f.witness.until("> four")
	for _, text := range []string{"> one", "> two", "> three", "> four"} {
		n := 0
		for _, line := range f.witness.seen {
			if strings.Contains(line, text) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q came %d times", text, n)
		}
	}
}

func TestFlood_TheBucketIsObeyed_ByEveryLine(t *testing.T) {
	for name, caps := range map[string][]string{"all": nil, "none": {}} {
		t.Run(name, func(t *testing.T) {
			withoutDelay(t, func(t *testing.T) { obeysTheBucket(t, ircd.Options{Capabilities: caps}) })
		})
	}
}

func obeysTheBucket(t *testing.T, opts ircd.Options) {
	// The server's limit is only a little wider than ours.
	opts.Flood = ircd.Flood{Burst: 6, Interval: 21 * time.Millisecond}
	f := joined(t, piping(opts), func(c *Config) { c.Flood = Flood{Burst: 5, Interval: 22 * time.Millisecond} })
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
}

func TestPing_SilentServer_IsLeft(t *testing.T) { withoutDelay(t, leavesASilentServer) }

func leavesASilentServer(t *testing.T) {
	f := joined(t, piping(allCaps), func(c *Config) { c.Ping = Ping{Interval: 100 * time.Millisecond, Timeout: 200 * time.Millisecond} })
	f.server.Hold("bridge", true)
	f.witness.until("QUIT")
	f.mustSend(message("again"))
}

func TestDeliver_AgainUntilItIsKept_InOrder(t *testing.T) {
	f := joined(t, allCaps)
	f.sink.until(t, "members")
	var failures atomic.Int32
	f.sink.failWith(func(in *bridge.Incoming) error {
		if in.Text != nil && in.Text.Body == "nowhere" {
			return fmt.Errorf("taking it: %w", bridge.ErrNoPortal)
		}
		if failures.Add(1) <= 2 {
			return errors.New("the disk is full")
		}
		return nil
	})
	f.witness.send("PRIVMSG #c :nowhere", "PRIVMSG #c :first", "PRIVMSG #c :second")
	f.sink.until(t, "second")
	before := slices.Index(f.sink.lines(), "#c text witness: second") - 1
	if f.sink.count("first") != 1 || f.sink.count("nowhere") != 0 || before < 0 || f.sink.lines()[before] != "#c text witness: first" {
		t.Errorf("%q", f.sink.lines())
	}
}

func TestDeliver_SlowSink_HoldsTheReaderBack_AndLosesNothing(t *testing.T) {
	f := joined(t, noCaps)
	f.sink.until(t, "members")
	gate := make(chan struct{})
	f.sink.failWith(func(*bridge.Incoming) error { <-gate; return nil })
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
	f.sink.failWith(func(*bridge.Incoming) error { <-gate; return nil })
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
		t.Errorf("%q", f.sink.lines())
	}
	if _, err := f.session.Send(f.ctx(), message("x")); err == nil || bridge.IsPermanent(err) || bridge.IsInDoubt(err) {
		t.Errorf("%v", err)
	}
}

func TestClose_TheServerHangsUpAfterTheGoodbye_IsNoBrokenConnection(t *testing.T) {
	for range 20 {
		f := start(t, noCaps)
		f.sink.until(t, "online")
		if err := f.session.Close(f.ctx()); err != nil {
			t.Error(err)
		}
		if f.sink.count("No connection") != 0 {
			t.Fatalf("%q", f.sink.lines())
		}
	}
}

func TestClose_ContextEnds_SaysWhatIsLeft(t *testing.T) {
	f := joined(t, noCaps)
	f.sink.until(t, "members")
	f.sink.failWith(func(*bridge.Incoming) error { return errors.New("never") })
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
