package irc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/bridge"
)

var _ bridge.Checker = (*Network)(nil)

// CheckConnection implements [bridge.Checker]: it connects as the bridge does, TLS, password and SASL included, enters no
// channel, and quits. It has a nick of its own, so that a bridge that runs keeps its nick, and one that is started right after
// the check gets it, even where the server lets a QUIT wait.
func (n *Network) CheckConnection(ctx context.Context) error {
	config := *n.Config().(*Config)
	config.Nick = fallbackNick(config.Nick, 3, 0)
	probe := &probe{said: make(chan error, 1), log: zerolog.Nop()}
	s := n.open(config, &bridge.Login{ID: bridge.RelayLogin}, probe, newCrew(newOutlet(probe)))
	var err error
	select {
	case err = <-probe.said:
	case <-ctx.Done():
		err = fmt.Errorf("no answer from %s", config.Address)
	}
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// probe is a sink that waits for the first thing that a session says of its connection.
type probe struct {
	said chan error
	log  zerolog.Logger
}

func (p *probe) say(err error) {
	select {
	case p.said <- err:
	default:
	}
}

func (p *probe) Since(context.Context, string) (time.Time, error) { return time.Time{}, nil }

func (p *probe) Online() { p.say(nil) }

func (p *probe) Warn(channel, text string) {
	if channel == "" {
		text, _, _ = strings.Cut(text, ". The bridge ") // what it does next is not what it does here
		p.say(errors.New(strings.TrimPrefix(text, "IRC: ")))
	}
}

func (p *probe) Deliver(context.Context, *bridge.Incoming) error { return bridge.ErrNoPortal }
func (p *probe) Typing(string, bridge.RemoteUser, bool)          {}
func (p *probe) Log() *zerolog.Logger                            { return &p.log }
