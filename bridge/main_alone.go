package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// alone takes the bridge's place, for a command that nothing may run beside: its listener and its store. The error says who has it. done gives it back.
func (p *program) alone(ctx context.Context, cfg *Config, r *appservice.Registration) (s *store.Store, probe *homeserverProbe, done func() error, err error) {
	var said strings.Builder
	f := &findings{out: &said}
	probe, idle := p.newProbe(cfg, r)
	unlisten := probe.listen(f)
	defer func() {
		if err != nil {
			unlisten()
			idle()
		}
	}()
	switch {
	case f.failed:
		return nil, nil, nil, errors.New(strings.TrimSuffix(said.String(), "\n"))
	case probe.listener == nil:
		return nil, nil, nil, fmt.Errorf("the bridge runs: something listens on %s (appservice.listen); stop it, and do this again", cfg.Appservice.Listen)
	case !probe.versions(ctx, f) || !probe.token(ctx, f):
		return nil, nil, nil, errors.New(strings.TrimSuffix(said.String(), "\n"))
	case probe.answeredElsewhere(ctx):
		return nil, nil, nil, fmt.Errorf("the bridge runs somewhere else: it answers the homeserver at %s; stop it, and do this again", cfg.Appservice.Address)
	}
	s, err = store.Open(ctx, cfg.Database, store.Options{Log: zerolog.Nop()})
	if errors.Is(err, store.ErrInUse) {
		return nil, nil, nil, fmt.Errorf("the bridge runs: %w", err)
	} else if err != nil {
		return nil, nil, nil, errors.New(withoutPassword(err.Error(), cfg.Database))
	}
	return s, probe, func() error {
		defer idle()
		defer unlisten()
		return s.Close()
	}, nil
}
