package bridge

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trestle-bridge/trestle/appservice"
)

// registrationCommand writes the registration that belongs to the configuration, and says what to do with it.
func (p *program) registrationCommand(f *flag.FlagSet) func() int {
	out := f.String("out", "", "write to `FILE` instead of appservice.registration")
	replace := f.Bool("replace", false, "write anew over a file that is there; its tokens stay")
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
		save := registration.Save
		if *replace {
			save = func(path string) error { return replaceRegistration(registration, path) }
		}
		if err := save(path); err != nil {
			fmt.Fprintln(p.stderr, err)
			if errors.Is(err, fs.ErrExist) {
				fmt.Fprintln(p.stderr, "nothing was changed; -replace writes it anew with the tokens that it has, -out FILE writes to another file")
			}
			return exitFailed
		}
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute
		}
		fmt.Fprintf(p.stdout, nextSteps, path, programName(), p.config)
		return exitOK
	}
}

// replaceRegistration writes a registration over another one, whose tokens the homeserver knows. One that cannot be read is
// left as it is.
func replaceRegistration(r *appservice.Registration, path string) error {
	switch old, err := appservice.LoadRegistration(path); {
	case err == nil:
		r.ASToken, r.HSToken = old.ASToken, old.HSToken
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("replace the registration: the one that is there has mistakes; mend them, so that its tokens can stay, or remove it: %w", err)
	}
	beside := path + ".new"
	if err := os.Remove(beside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the registration: %w", err)
	}
	if err := r.Save(beside); err != nil {
		return err
	}
	if err := os.Rename(beside, path); err != nil {
		return fmt.Errorf("replace the registration: %w", err)
	}
	return nil
}

const nextSteps = `Wrote %[1]s. It holds the secrets that the homeserver and the bridge share.

Now tell the homeserver. If it runs as another user or on another machine, give it a copy that it can read, and nobody else.

Synapse, in homeserver.yaml; then restart Synapse:

    app_service_config_files:
      - %[1]s

    # for encryption
    experimental_features:
      msc2409_to_device_messages_enabled: true
      msc3202_transaction_extensions: true

Dendrite, in dendrite.yaml; then restart Dendrite:

    app_service_api:
      config_files:
        - %[1]s

Continuwuity and Tuwunel, in the admin room, with what is in the file as a code block below it:

    !admin appservices register

Then:

    %[2]s check -config %[3]s
    %[2]s run -config %[3]s
`
