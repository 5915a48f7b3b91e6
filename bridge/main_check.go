package bridge

import (
	"context"
	"errors"
	"flag"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// checkTimeout is for everything that check tries.
const checkTimeout = time.Minute

// checkPatience is how long check waits for what may never come, because the homeserver does not send it.
const checkPatience = 10 * time.Second

// checkCommand first looks for every mistake in both files, and when there is none tries what the bridge needs.
func (p *program) checkCommand(flags *flag.FlagSet) func() int {
	asJSON := flags.Bool("json", false, "one JSON object a line, for programs")
	return func() int {
		f := &findings{out: p.stdout, asJSON: *asJSON}
		cfg, err := readConfig(p.config, p.env, p.network)
		if mistakes := (*ConfigError)(nil); errors.As(err, &mistakes) {
			for _, m := range mistakes.Mistakes {
				text, _ := strings.CutSuffix(m.String(), "; "+m.Mend)
				f.fail("configuration", m.Mend, "%s", text)
			}
			checkRegistrationBeside(f, cfg, mistakes)
			return exitWrong
		} else if err != nil {
			f.fail("configuration", p.configMend(err), "%v", err)
			return exitWrong
		}
		f.ok("configuration", "%s", p.config)
		for _, w := range cfg.Warnings() {
			text, _ := strings.CutSuffix(w.String(), "; "+w.Mend)
			f.warn("configuration", w.Mend, "%s", text)
		}
		if mistakes := registrationMistakes(cfg, nil); len(mistakes) > 0 {
			for _, m := range mistakes {
				f.mistake("registration", m)
			}
			checkDatabase(f, cfg)
			return exitWrong
		}
		registration, err := appservice.LoadRegistration(cfg.Appservice.Registration)
		if err != nil {
			f.fail("registration", "", "%v", err)
			return exitWrong
		}
		f.ok("registration", "%s agrees with the configuration", cfg.Appservice.Registration)
		for _, n := range registrationNotes(cfg, p.network) {
			text, _ := strings.CutSuffix(n.Error(), "; "+n.Mend)
			f.warn("registration", n.Mend, "%s", text)
		}
		// Who interrupts a check leaves nothing behind either.
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		checkModes(f, p.config, cfg)
		checkDatabase(f, cfg)
		checkPickleKey(ctx, f, cfg)
		checkMediaURL(f, cfg)
		p.checkHomeserver(ctx, f, cfg, registration)
		if ctx.Err() != nil {
			f.fail("check", "do it again", "interrupted")
			return exitFailed
		}
		checkNetwork(ctx, f, p.network)
		if f.failed {
			return exitFailed
		}
		return exitOK
	}
}

// checkRegistrationBeside looks at the registration although the configuration has mistakes, and compares it with what is
// right in the configuration.
func checkRegistrationBeside(f *findings, cfg *Config, mistakes *ConfigError) {
	if mistakes.concerns("appservice.registration") {
		f.warn("registration", "", "not looked at, because the configuration does not say where it is")
		return
	}
	for _, err := range registrationMistakes(cfg, mistakes.concerns) {
		f.mistake("registration", err)
	}
}

// checkModes looks at who can read the files with secrets in them.
func checkModes(f *findings, config string, cfg *Config) {
	for _, path := range []string{config, cfg.Appservice.Registration} {
		info, err := os.Stat(path)
		if err == nil && info.Mode().Perm()&0o004 != 0 {
			f.warn("secrets", "write: chmod o= "+path, "%s can be read by everybody on this machine", path)
		}
	}
}

// checkNetwork connects to the remote network, if the network can try that.
func checkNetwork(ctx context.Context, f *findings, n Network) {
	name := n.Info().Name
	checker, ok := n.(Checker)
	if !ok {
		f.warn("network", "the first run shows whether it works", "the connection to %s is not tried here", name)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := checker.CheckConnection(ctx); err != nil {
		f.fail("network", "", "%s: %v", name, err)
		return
	}
	f.ok("network", "%s lets the bridge in", name)
}

// checkDatabase looks whether the database would open, and leaves it alone: a running bridge keeps it, and one that is not
// there yet is not made.
func checkDatabase(f *findings, cfg *Config) {
	shown := "PostgreSQL"
	if path, isSQLite := sqlitePath(cfg.Database); isSQLite {
		shown = path
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			dir := filepath.Dir(path)
			probe, err := os.CreateTemp(dir, ".trestle-check-*")
			if err != nil {
				f.fail("database", "make the directory "+dir+", and let the bridge write there", "%s cannot be made: %v", path, err)
				return
			}
			probe.Close()
			os.Remove(probe.Name())
			f.ok("database", "%s will be made by the first run", path)
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	switch err := store.Probe(ctx, cfg.Database); {
	case errors.Is(err, store.ErrInUse):
		f.ok("database", "%s is in use, by the bridge if it is running", shown)
	case err != nil:
		f.fail("database", "look at the setting database, and whether the database is there", "%s", withoutPassword(err.Error(), cfg.Database))
	default:
		f.ok("database", "%s opens", shown)
	}
}

// checkPickleKey tries the key on what the database has, if it has anything and can be read. It works beside a running bridge.
func checkPickleKey(ctx context.Context, f *findings, cfg *Config) {
	if !cfg.encrypts() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	v, err := store.Visit(ctx, cfg.Database)
	if err != nil {
		return // there is none yet, or checkDatabase has said why
	}
	defer v.Close()
	account, err := v.AnyKeyAccount(ctx)
	if err != nil {
		return
	}
	key := []byte(cfg.Encryption.PickleKey)
	if len(key) == 0 {
		if key, err = v.Setting(ctx, pickleKeySetting); err != nil && !errors.Is(err, store.ErrNotFound) {
			return
		}
	}
	if errors.Is(crypto.TryPickleKey(account, key), crypto.ErrPickleKey) {
		f.fail("encryption", pickleMend, "%v", crypto.ErrPickleKey)
	}
}

// sqlitePath gives the file of an SQLite database.
func sqlitePath(uri string) (path string, ok bool) {
	rest, ok := strings.CutPrefix(uri, "sqlite:")
	rest, _, _ = strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	return rest, ok
}

// withoutPassword takes a database's password out of what a driver says.
func withoutPassword(text, uri string) string {
	text = strings.ReplaceAll(text, uri, "the database")
	if u, err := url.Parse(uri); err == nil && u.User != nil {
		if password, _ := u.User.Password(); password != "" {
			text = strings.ReplaceAll(text, password, "***")
			text = strings.ReplaceAll(text, url.QueryEscape(password), "***")
		}
	}
	return credentials.ReplaceAllString(text, "//***@")
}

func checkMediaURL(f *findings, cfg *Config) {
	switch u, err := url.Parse(cfg.Media.PublicURL); {
	case cfg.Media.PublicURL == "":
		f.ok("media", "there are no media links, because media.public_url is empty")
	case cfg.Media.Listen == "" && err == nil:
		f.ok("media", "links begin with %s/m/; media.listen is empty, so the subcommand proxy must answer them", strings.TrimRight(u.String(), "/"))
	case err != nil:
		f.fail("media", "write one that leads to media.listen", "media.public_url is not a URL")
	default:
		f.ok("media", "links begin with %s/m/ and are answered on %s", strings.TrimRight(u.String(), "/"), cfg.Media.Listen)
	}
}
