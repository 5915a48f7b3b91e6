package bridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// checkTimeout is for everything that check tries.
const checkTimeout = time.Minute

// findings are what check prints: one line each.
type findings struct {
	out    io.Writer
	failed bool
}

func (f *findings) ok(what, format string, args ...any) { f.line("ok", what, format, args...) }

// note is for what could not be tried, and for what works and is probably not wanted.
func (f *findings) note(what, format string, args ...any) { f.line("note", what, format, args...) }

func (f *findings) wrong(what, format string, args ...any) {
	f.failed = true
	f.line("WRONG", what, format, args...)
}

func (f *findings) line(verdict, what, format string, args ...any) {
	fmt.Fprintf(f.out, "%-6s%-14s%s\n", verdict, what, fmt.Sprintf(format, args...))
}

// checkCommand first looks for every mistake in both files, and when there is none tries what the bridge needs.
func (p *program) checkCommand(*flag.FlagSet) func() int {
	return func() int {
		f := &findings{out: p.stdout}
		cfg, err := readConfig(p.config, p.env, p.network)
		if mistakes := (*ConfigError)(nil); errors.As(err, &mistakes) {
			for _, m := range mistakes.Mistakes {
				f.wrong("configuration", "%s", m)
			}
			checkRegistrationBeside(f, cfg, mistakes)
			return exitWrong
		} else if err != nil {
			f.wrong("configuration", "%v", err)
			return exitWrong
		}
		f.ok("configuration", "%s", p.config)
		for _, w := range cfg.Warnings() {
			f.note("configuration", "%s", w)
		}
		if mistakes := registrationMistakes(cfg, nil); len(mistakes) > 0 {
			for _, m := range mistakes {
				f.wrong("registration", "%v", m)
			}
			checkDatabase(f, cfg)
			return exitWrong
		}
		registration, err := appservice.LoadRegistration(cfg.Appservice.Registration)
		if err != nil {
			f.wrong("registration", "%v", err)
			return exitWrong
		}
		f.ok("registration", "%s agrees with the configuration", cfg.Appservice.Registration)
		for _, n := range registrationNotes(cfg, p.network) {
			f.note("registration", "%s", n)
		}
		checkModes(f, p.config, cfg)
		checkDatabase(f, cfg)
		checkMediaURL(f, cfg)
		checkHomeserver(f, cfg, registration)
		checkNetwork(f, p.network)
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
		f.note("registration", "not looked at, because the configuration does not say where it is")
		return
	}
	for _, err := range registrationMistakes(cfg, mistakes.concerns) {
		f.wrong("registration", "%v", err)
	}
}

// checkModes looks at who can read the files with secrets in them.
func checkModes(f *findings, config string, cfg *Config) {
	for _, path := range []string{config, cfg.Appservice.Registration} {
		info, err := os.Stat(path)
		if err == nil && info.Mode().Perm()&0o004 != 0 {
			f.note("secrets", "%s can be read by everybody on this machine; write: chmod o= %s", path, path)
		}
	}
}

// checkNetwork connects to the remote network, if the network can try that.
func checkNetwork(f *findings, n Network) {
	name := n.Info().Name
	checker, ok := n.(Checker)
	if !ok {
		f.note("network", "the connection to %s is not tried here; the first run shows whether it works", name)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	if err := checker.CheckConnection(ctx); err != nil {
		f.wrong("network", "%s: %v", name, err)
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
				f.wrong("database", "%s cannot be made: %v; make the directory %s, and let the bridge write there", path, err, dir)
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
		f.wrong("database", "%s; look at the setting database, and whether the database is there", withoutPassword(err.Error(), cfg.Database))
	default:
		f.ok("database", "%s opens", shown)
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
		f.note("media", "there are no media links, because media.public_url is empty")
	case cfg.Media.Listen == "" && err == nil:
		f.ok("media", "links begin with %s/m/; media.listen is empty, so the subcommand proxy must answer them", strings.TrimRight(u.String(), "/"))
	case err != nil:
		f.wrong("media", "media.public_url is not a URL")
	default:
		f.ok("media", "links begin with %s/m/ and are answered on %s", strings.TrimRight(u.String(), "/"), cfg.Media.Listen)
	}
}
