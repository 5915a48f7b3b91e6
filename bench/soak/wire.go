package soak

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"regexp"
	"sync"
	"testing"
)

// wire is the cable between the bridge and the IRC server: every line on it is written down.
type wire struct {
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when something happens
	links   []*link
	arrived []line // what the IRC server was given to say, in order
}

// link is one connection of the bridge.
type link struct {
	net.Conn
	wire *wire

	// Guarded by the wire's lock.
	toBridge, toServer []byte // a line that is not whole yet
	given              []string
	entered            map[string]bool
	over               bool
}

// line is one line of a message that came to the IRC server.
type line struct {
	link                 *link
	channel, marker, url string
}

var (
	// fromIRC is a message of somebody on IRC on its way to the bridge.
	fromIRC  = regexp.MustCompile(` PRIVMSG #\S+ :?(i\d+-\d+)$`)
	namesEnd = regexp.MustCompile(`^(?:@\S+ )?:\S+ 366 \S+ (#\S+) `)
	// fromMatrix is a line of the bridge: a text or a further line of one, an edit, an answer to somebody, or a photo with its link.
	fromMatrix = regexp.MustCompile(`PRIVMSG (#\S+) :<alice> (?:\* |\S+: )?([mp]\d+-\d+(?:/\d)?)(?:\.png .*?(http\S+))?$`)
)

// newWire has serve take each connection of the bridge.
func newWire(t *testing.T, serve func(net.Conn)) *wire {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, changed: make(chan struct{})}
	w.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l := &link{Conn: conn, wire: w, entered: map[string]bool{}}
			w.mu.Lock()
			w.links = append(w.links, l)
			w.mu.Unlock()
			serve(l)
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		w.running.Wait()
	})
	return w
}

// Read is what the bridge has sent.
func (l *link) Read(into []byte) (int, error) {
	n, err := l.Conn.Read(into)
	l.wire.note(func() {
		l.toServer = each(append(l.toServer, into[:n]...), func(text string) {
			if m := fromMatrix.FindStringSubmatch(text); m != nil {
				l.wire.arrived = append(l.wire.arrived, line{l, m[1], m[2], m[3]})
			}
		})
	})
	return n, err
}

// Write is what the bridge is sent; nobody knows how much of it the bridge reads.
func (l *link) Write(data []byte) (int, error) {
	l.wire.note(func() {
		l.toBridge = each(append(l.toBridge, data...), func(text string) {
			if m := fromIRC.FindStringSubmatch(text); m != nil {
				l.given = append(l.given, m[1])
			} else if m := namesEnd.FindStringSubmatch(text); m != nil {
				l.entered[m[1]] = true
			}
		})
	})
	return l.Conn.Write(data)
}

// Close is the server's, when the link is gone.
func (l *link) Close() error {
	l.wire.note(func() { l.over = true })
	return l.Conn.Close()
}

// each calls fn with every whole line, and returns the rest.
func each(data []byte, fn func(text string)) []byte {
	for {
		text, rest, found := bytes.Cut(data, []byte("\n"))
		if !found {
			return data
		}
		fn(string(bytes.TrimSuffix(text, []byte("\r"))))
		data = rest
	}
}

func (w *wire) note(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// wait returns once it is so, with an error when ctx ends or stop is closed before; ok is called with the wire's lock.
func (w *wire) wait(ctx context.Context, stop <-chan struct{}, what string, ok func() bool) error {
	for {
		w.mu.Lock()
		done, changed := ok(), w.changed
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-stop:
			return errOver
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		}
	}
}

// inChannels says whether the bridge, over its newest link, is in so many channels.
func (w *wire) inChannels(n int) func() bool {
	return func() bool {
		if len(w.links) == 0 {
			return false
		}
		l := w.links[len(w.links)-1]
		return !l.over && len(l.entered) >= n
	}
}

// noLinks says whether the IRC server has seen every link end.
func (w *wire) noLinks() bool {
	for _, l := range w.links {
		if !l.over {
			return false
		}
	}
	return true
}
