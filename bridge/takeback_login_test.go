package bridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// redacting is a network with logins, on which each session takes back as the test says, in turn.
type redacting struct {
	*bridgetest.Network
	mu      sync.Mutex
	answers map[bool][]error // by whether the relay is asked; used up: nil
	asked   []string
	sinks   []bridge.Sink
}

func (n *redacting) MakeLogin(id.UserID, []string, []*bridge.Login) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}

func (n *redacting) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	n.mu.Lock()
	n.sinks = append(n.sinks, sink)
	n.mu.Unlock()
	session, err := n.Network.Open(ctx, login, sink)
	return &redactingSession{session, n, login.ID}, err
}

type redactingSession struct {
	bridge.Session
	n  *redacting
	id string
}

func (s *redactingSession) JoinChannel(context.Context, string) error  { return nil }
func (s *redactingSession) LeaveChannel(context.Context, string) error { return nil }
func (s *redactingSession) Redacts() bool                              { return true }

func (s *redactingSession) SendRedaction(context.Context, string, []string, string, bridge.Sender) (err error) {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	relay := s.id == bridge.RelayLogin
	s.n.asked = append(s.n.asked, map[bool]string{true: "relay", false: "login"}[relay])
	if answers := s.n.answers[relay]; len(answers) > 0 {
		err, s.n.answers[relay] = answers[0], answers[1:]
	}
	return err
}

func TestTakeBack_ThroughWhichSession(t *testing.T) {
	refused := bridge.Permanent(errors.New("it is not yours"))
	for name, test := range map[string]struct {
		login, relay []error
		want         []string
		told         bool
	}{
		"the login said it":             {nil, nil, []string{"login"}, false},
		"the relay said it":             {[]error{refused}, nil, []string{"login", "relay"}, false},
		"the login said it and is away": {[]error{bridge.ErrOffline}, []error{refused}, []string{"login", "relay"}, true},
		"both are away for a moment":    {[]error{bridge.ErrOffline}, []error{bridge.ErrOffline}, []string{"login", "relay", "login"}, false},
		"the relay said it and is away": {[]error{refused, refused}, []error{bridge.ErrOffline}, []string{"login", "relay", "login", "relay"}, false},
		"neither may":                   {[]error{refused}, []error{refused}, []string{"login", "relay"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := &redacting{Network: bridgetest.NewNetwork(), answers: map[bool][]error{false: test.login, true: test.relay}}
			n.MessageIDs = true
			c := newPlumbed(t, n, n.Network)
			ctx := c.ctx
			c.says("!test login")
			c.seesNotice("from a connection of your own now")
			said := must(c.alice.SendText(ctx, c.room, "taken back"))(t)
			c.arrives("taken back")
			must(c.alice.Redact(ctx, c.room, said, ""))(t)
			asked := func() []string {
				n.mu.Lock()
				defer n.mu.Unlock()
				for _, sink := range n.sinks {
					sink.Online()
				}
				return slices.Clone(n.asked)
			}
			for end := time.Now().Add(20 * time.Second); len(asked()) < len(test.want) && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
			c.says("after")
			c.arrives("after")
			if got := asked(); !slices.Equal(got, test.want) {
				t.Errorf("asked were %q, want %q", got, test.want)
			}
			told := false
			for _, e := range must(c.alice.Timeline(ctx, c.room))(t) {
				told = told || e.Sender == c.b.BotID() && e.Body() == "Scripted did not take the message back: it is not yours."
			}
			if told != test.told {
				t.Errorf("alice was told: %v", told)
			}
		})
	}
}
