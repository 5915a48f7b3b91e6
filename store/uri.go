package store

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const uriForms = `write "sqlite:PATH" or "postgres://USER:PASSWORD@HOST/DATABASE"`

// sqlitePath gives the path of a sqlite: URI.
func sqlitePath(uri string) (path string, ok bool, err error) {
	path, ok = strings.CutPrefix(uri, "sqlite:")
	if !ok {
		return "", false, nil
	}
	if rest, slashes := strings.CutPrefix(path, "//"); slashes {
		path = rest
	}
	switch {
	case path == "":
		return "", true, fmt.Errorf("the database URI %q has no path: write \"sqlite:PATH\"", uri)
	case path == ":memory:":
		return "", true, fmt.Errorf("the database URI %q keeps nothing: write \"sqlite:PATH\"", uri)
	case strings.Contains(path, "?"):
		return "", true, fmt.Errorf("the database URI %q has options behind \"?\": SQLite's settings are not to be chosen, write \"sqlite:PATH\"", uri)
	}
	return path, true, nil
}

// postgresURI checks a PostgreSQL URI. Errors do not repeat it: it holds a password.
func postgresURI(uri string) (*url.URL, error) {
	if !strings.HasPrefix(uri, "postgres://") && !strings.HasPrefix(uri, "postgresql://") {
		scheme, _, found := strings.Cut(uri, ":")
		if !found || strings.ContainsAny(scheme, "/@= ") {
			scheme = ""
		}
		return nil, fmt.Errorf("the database URI has the unknown scheme %q: %s", scheme, uriForms)
	}
	u, err := url.Parse(uri)
	if err != nil {
		return nil, errors.New("the database URI is not a URI (a password with special characters must be percent-encoded): " + uriForms)
	}
	return u, nil
}

// redacted hides what must not be told: drivers repeat parts of the URI in their errors.
type redacted struct {
	err     error
	secrets []string
}

func (r *redacted) Error() string {
	s := r.err.Error()
	for _, secret := range r.secrets {
		s = strings.ReplaceAll(s, secret, "[hidden]")
	}
	return s
}

// Is lets the kind be tested without handing out the text.
func (r *redacted) Is(target error) bool { return errors.Is(r.err, target) }

func redact(err error, u *url.URL) error {
	if err == nil {
		return nil
	}
	var secrets []string
	add := func(s string) {
		if s != "" {
			secrets = append(secrets, s)
		}
	}
	add(u.String())
	if u.User != nil {
		add(u.User.String())
		if password, ok := u.User.Password(); ok {
			add(password)
			add(url.QueryEscape(password))
			add(url.PathEscape(password))
		}
	}
	add(u.Query().Get("password"))
	add(url.QueryEscape(u.Query().Get("password")))
	return &redacted{err, secrets}
}
