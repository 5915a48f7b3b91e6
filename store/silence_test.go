package store_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// mute is a network between a store and its server that can stop to carry anything, without closing a connection.
type mute struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns []net.Conn
	muted *sync.Cond
	quiet map[net.Conn]bool
	after string // what the connection that carries it says last
	ended bool
	wg    sync.WaitGroup
}

func newMute(tb testing.TB, target string) *mute {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	m := &mute{listener: listener, target: target, quiet: map[net.Conn]bool{}}
	m.muted = sync.NewCond(&m.mu)
	m.wg.Go(m.accept)
	tb.Cleanup(func() {
		_ = listener.Close()
		m.mu.Lock()
		m.ended = true
		for _, conn := range m.conns {
			_ = conn.Close()
		}
		m.muted.Broadcast()
		m.mu.Unlock()
		m.wg.Wait()
	})
	return m
}

func (m *mute) accept() {
	for {
		client, err := m.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", m.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		m.mu.Lock()
		m.conns = append(m.conns, client, server)
		m.mu.Unlock()
		m.wg.Go(func() { m.carry(server, client, client) })
		m.wg.Go(func() { m.carry(client, server, client) })
	}
}

func (m *mute) carry(to, from, name net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		m.mu.Lock()
		for m.quiet[name] && !m.ended {
			m.muted.Wait()
		}
		if m.after != "" && bytes.Contains(buf[:n], []byte(m.after)) {
			m.after, m.quiet[name] = "", true
		}
		m.mu.Unlock()
		if _, err = io.Writer(to).Write(buf[:n]); err != nil {
			return
		}
	}
}

// silence takes every connection that there is into its peace. New ones are carried.
func (m *mute) silence() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.conns {
		m.quiet[conn] = true
	}
}

// silenceAfter lets a connection say this, and then nothing any more.
func (m *mute) silenceAfter(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.after = text
}

func TestCommit_PostgresGoneWithoutAWord_IsGivenUpAndWhatBecameOfItIsFoundOut(t *testing.T) {
	store.SilentAfter(t, time.Second)
	fresh := storetest.PostgresServer(t)
	for name, c := range map[string]struct {
		silence func(m *mute)
		inJob   func(m *mute)
		taken   bool
	}{
		"before a commit begins":        {silence: (*mute).silence, taken: true}, // on a new connection
		"before its statements":         {inJob: (*mute).silence},
		"before the answer to a commit": {silence: func(m *mute) { m.silenceAfter("COMMIT") }, taken: true},
	} {
		t.Run(name, func(t *testing.T) {
			uri, err := url.Parse(fresh(t))
			if err != nil {
				t.Fatal(err)
			}
			network := newMute(t, uri.Host)
			uri.Host = network.listener.Addr().String()
			s := storetest.Open(t, uri.String(), store.Options{})
			if n, err := take(s, "$before", 10); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			if c.silence != nil {
				c.silence(network)
			}
			ended := make(chan error, 1)
			go func() {
				ended <- s.Commit(t.Context(), s.Epoch(), func(tx *store.Tx) error {
					if c.inJob != nil {
						c.inJob(network)
					}
					return tx.PutSetting("test", []byte("kept"))
				})
			}()
			select {
			case err = <-ended:
			case <-time.After(time.Minute):
				t.Fatal("the commit still waits for the silent server")
			}
			if (err == nil) != c.taken {
				t.Errorf("the commit ended with %v", err)
			}
			value, err := s.Setting(t.Context(), "test")
			if err != nil && !errors.Is(err, store.ErrNotFound) { // the readers were silenced as well
				value, err = s.Setting(t.Context(), "test")
			}
			if kept := err == nil && string(value) == "kept"; kept != c.taken {
				t.Errorf("what it wrote: %q, %v", value, err)
			}
			if n, err := take(s, "$after", 10); n != 1 || err != nil {
				t.Errorf("the next commit: %d, %v", n, err)
			}
		})
	}
}
