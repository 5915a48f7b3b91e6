package bridge

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/trestle-bridge/trestle/appservice"
)

// registrationCommand writes the registration that belongs to the configuration, and says what to do with it.
func (p *program) registrationCommand(f *flag.FlagSet) func() int {
	out := f.String("out", "", "write to `FILE` instead of appservice.registration")
	return func() int {
		cfg, status := p.load()
		if cfg == nil {
			return status
		}
		path := cfg.Appservice.Registration
		if *out != "" {
			path = *out
		}
		registration, err := appservice.Generate(appservice.GenerateOptions{
			ID: cfg.Appservice.ID, URL: cfg.Appservice.Address, Domain: cfg.Homeserver.Domain,
			SenderLocalpart: cfg.Appservice.Bot, GhostPrefix: cfg.Appservice.Ghosts, AliasPrefix: cfg.Appservice.Ghosts,
			Protocols: protocols(p.network),
		})
		if err != nil {
			fmt.Fprintln(p.stderr, err)
			return exitWrong
		}
		if err := registration.Save(path); err != nil {
			fmt.Fprintln(p.stderr, err)
			if errors.Is(err, fs.ErrExist) {
				fmt.Fprintln(p.stderr, "nothing was changed; -out FILE writes to another file")
			}
			return exitFailed
		}
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute
		}
		fmt.Fprintf(p.stdout, nextSteps, path, path, path, programName(), p.config, programName(), p.config)
		return exitOK
	}
}

const nextSteps = `Wrote %s. It holds the secrets that the homeserver and the bridge share.

Now tell the homeserver. If it runs as another user or on another machine, give it a copy that it can read, and nobody else.

Synapse, in homeserver.yaml:

    app_service_config_files:
      - %s

Dendrite, in dendrite.yaml:

    app_service_api:
      config_files:
        - %s

Restart the homeserver. Then:

    %s check -config %s
    %s run -config %s
`
