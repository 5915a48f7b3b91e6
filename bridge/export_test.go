package bridge

import (
	"context"
	"io"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
)

// UpdateGolden is the flag that writes golden files anew.
var UpdateGolden = update

// RunCommand is [Main] without the process around it.
var RunCommand = run

// RunProxy is the subcommand proxy without the process around it.
func RunProxy(ctx context.Context, cfg *Config, token string) error {
	return (&mediaProxy{cfg: cfg, token: token, log: zerolog.Nop()}).Run(ctx)
}

// TryOfNothing carries out a row in a bridge that has no parts, which panics.
func TryOfNothing(attempts int) error {
	b := &Bridge{}
	_, err := b.try(context.Background(), &store.Outgoing{Attempts: attempts}, &outgoing{Op: opJoin}, 0)
	return err
}

// RunPatient is [RunCommand] with another time that check waits for what may never come.
func RunPatient(n Network, patience time.Duration, env []string, stdout, stderr io.Writer, args ...string) int {
	return (&program{network: n, env: env, stdout: stdout, stderr: stderr, patience: patience}).run(args)
}
