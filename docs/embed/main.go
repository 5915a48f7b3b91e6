// Command embed bridges Matrix to a chat server that speaks lines over TCP: channel, name and text, separated by tabs.
// It is the smallest whole bridge: everything that it does not say, the framework does.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/trestle-bridge/trestle/bridge"
)

func main() { bridge.Main(&network{Address: "localhost:7000"}) }

// network is also its own `network:` section of the configuration.
type network struct {
	Address string `yaml:"address"` // host:port of the chat server
}

func (n *network) Info() bridge.Info {
	return bridge.Info{ID: "line", Name: "Linechat", Command: "!line", Version: "1.0"}
}

func (n *network) Config() any { return n }

func (n *network) Validate() []bridge.Problem {
	if _, _, err := net.SplitHostPort(n.Address); err != nil {
		return []bridge.Problem{{Path: "address", Text: err.Error(), Mend: "localhost:7000"}}
	}
	return nil
}

func (n *network) Open(ctx context.Context, _ *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", n.Address)
	if err != nil {
		return nil, fmt.Errorf("connecting to the chat server: %w", err)
	}
	s := &session{conn: conn, ended: make(chan struct{})}
	go s.read(ctx, sink)
	return s, nil
}

type session struct {
	mu    sync.Mutex
	conn  net.Conn
	ended chan struct{}
}

var oneField = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")

// Send is Matrix → network. A line that was cut off may have arrived: that is for the framework to know.
func (s *session) Send(_ context.Context, m *bridge.Message) (bridge.Sent, error) {
	text := m.Text
	if m.Media != nil {
		text = strings.TrimSpace(m.Media.Name + " " + m.Media.URL + " " + text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	written, err := fmt.Fprintf(s.conn, "%s\t%s\t%s\n", m.Channel, oneField.Replace(m.Sender.Name), oneField.Replace(text))
	if err != nil && written > 0 {
		err = bridge.InDoubt(err)
	}
	return bridge.Sent{}, err
}

// read is network → Matrix. A message is safe when Deliver returns nil.
func (s *session) read(ctx context.Context, sink bridge.Sink) {
	defer close(s.ended)
	for lines := bufio.NewScanner(s.conn); lines.Scan(); {
		field := strings.SplitN(lines.Text(), "\t", 3)
		if len(field) != 3 {
			continue
		}
		if err := sink.Deliver(ctx, &bridge.Incoming{
			Channel: field[0], Sender: bridge.RemoteUser{ID: field[1], Name: field[1]},
			Text: &bridge.Text{Kind: bridge.KindText, Body: field[2]},
		}); err != nil {
			sink.Warn(field[0], "A message from Linechat was not taken in: "+err.Error())
		}
	}
}

func (s *session) Close(context.Context) error {
	err := s.conn.Close()
	<-s.ended
	return err
}
