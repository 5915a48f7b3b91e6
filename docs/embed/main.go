// Command embed bridges Matrix to a small web chat: POST sends a message and answers with its ID; GET gives the newest
// hundred messages of others, one JSON object each, and then every new one for as long as the connection holds.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

func main() { bridge.Main(network{os.Getenv("WEBCHAT_URL")}) }

type network struct{ url string }

func (n network) Info() bridge.Info { return bridge.Info{ID: "web", Name: "Webchat", Command: "!web"} }

func (n network) Open(ctx context.Context, _ *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	ctx, stop := context.WithCancel(ctx)
	s := &session{url: n.url, sink: sink, stop: stop, ended: make(chan struct{})}
	go s.run(ctx)
	return s, nil
}

type session struct {
	url   string
	sink  bridge.Sink
	stop  context.CancelFunc
	ended chan struct{}
}

type message struct{ ID, Channel, Name, Text string }

// run reads until the session is closed. When a connection breaks, the next one repeats what is newest: what was taken
// in before is known by its ID.
func (s *session) run(ctx context.Context) {
	defer close(s.ended)
	for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		if err := s.read(ctx); ctx.Err() == nil {
			s.sink.Warn("", "Connecting to Webchat again: "+err.Error())
		}
	}
}

// read is network → Matrix. A message is safe when Deliver returns nil.
func (s *session) read(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for messages := json.NewDecoder(answer.Body); ; {
		var m message
		if err := messages.Decode(&m); err != nil {
			return err
		}
		in := &bridge.Incoming{Channel: m.Channel, ID: m.ID, Text: &bridge.Text{Body: m.Text}}
		in.Sender = bridge.RemoteUser{ID: m.Name, Name: m.Name}
		if err := s.sink.Deliver(ctx, in); err != nil && !errors.Is(err, bridge.ErrNoPortal) {
			return err
		}
	}
}

// Send is Matrix → network. After a plain error the framework tries again; after one in doubt it tells the sender.
func (s *session) Send(_ context.Context, m *bridge.Message) (sent bridge.Sent, err error) {
	body, _ := json.Marshal(message{Channel: m.Channel, Name: m.Sender.Name, Text: m.PlainText()})
	answer, err := http.Post(s.url, "application/json", bytes.NewReader(body))
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		return sent, err
	} else if err != nil {
		return sent, bridge.InDoubt(err)
	}
	defer answer.Body.Close()
	var posted message
	if answer.StatusCode != http.StatusOK {
		return sent, fmt.Errorf("the chat answers %s", answer.Status)
	} else if err := json.NewDecoder(answer.Body).Decode(&posted); err != nil {
		return sent, bridge.InDoubt(err)
	}
	return bridge.Sent{IDs: []string{posted.ID}}, nil
}

func (s *session) Close(context.Context) error {
	s.stop()
	<-s.ended
	return nil
}
