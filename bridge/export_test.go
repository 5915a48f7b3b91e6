package bridge

import (
	"context"

	"github.com/rs/zerolog"
)

// RunCommand is [Main] without the process around it.
var RunCommand = run

// RunProxy is the subcommand proxy without the process around it.
func RunProxy(ctx context.Context, cfg *Config, token string) error {
	return (&mediaProxy{cfg: cfg, token: token, log: zerolog.Nop()}).Run(ctx)
}
