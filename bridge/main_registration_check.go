package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/trestle-bridge/trestle/appservice"
)

// unfold gives every mistake in a registration an error of its own.
func unfold(path string, err error) []error {
	if errors.Is(err, fs.ErrNotExist) {
		return []error{fmt.Errorf("%s: there is no registration; make it with: %s registration", path, programName())}
	}
	if mistakes := (appservice.Mistakes)(nil); errors.As(err, &mistakes) {
		var list []error
		for _, m := range mistakes {
			list = append(list, m)
		}
		return list
	}
	return []error{err}
}

// compareRegistration says where a registration and the configuration contradict each other. The homeserver follows the
// registration, so a bridge that follows something else would not work.
func compareRegistration(cfg *Config, r *appservice.Registration) []error {
	var list []error
	path, c := cfg.Appservice.Registration, &cfg.Appservice
	wrong := func(field, format string, args ...any) {
		line := fieldLine(path, field)
		list = append(list, fmt.Errorf("%s:%d: %s: %s", path, line, field, fmt.Sprintf(format, args...)))
	}
	// Whoever made the registration anew has to restart the homeserver too.
	const restart = "; then restart the homeserver"
	if r.ID != c.ID {
		wrong("id", "is %q, and the configuration has %q in appservice.id; make them equal%s", r.ID, c.ID, restart)
	}
	if strings.TrimRight(r.URL, "/") != c.Address {
		wrong("url", "is %s, and the configuration has %s in appservice.address; make them equal%s", quoteValue(r.URL), quoteValue(c.Address), restart)
	}
	if r.SenderLocalpart != c.Bot {
		wrong("sender_localpart", "is %q, and the configuration has %q in appservice.bot; make them equal%s", r.SenderLocalpart, c.Bot, restart)
	}
	// A name that nobody has, of all characters that names are escaped to, stands for all.
	ghost := "@" + c.Ghosts + "a0._=/+-:" + cfg.Homeserver.Domain
	if claimed, exclusive := claims(r, ghost); !claimed {
		wrong("namespaces", "no regex of users takes in the ghosts, such as @%sname:%s; add {exclusive: true, regex: %s}%s", c.Ghosts, cfg.Homeserver.Domain,
			quoteYAML("^@"+regexp.QuoteMeta(c.Ghosts)+".*:"+regexp.QuoteMeta(cfg.Homeserver.Domain)+"$"), restart)
	} else if !exclusive {
		wrong("namespaces", "the ghosts are not exclusive, so anybody could register as one; write exclusive: true%s", restart)
	}
	if _, everybody := claims(r, "@nobody-of-the-bridge:"+cfg.Homeserver.Domain); everybody {
		wrong("namespaces", "a regex of users takes in everybody on %s, exclusively, so that nobody could register there; write one that begins with ^@%s%s", cfg.Homeserver.Domain, regexp.QuoteMeta(c.Ghosts), restart)
	}
	if !r.ReceiveEphemeral {
		wrong("receive_ephemeral", "is not true, so there would be no typing; write receive_ephemeral: true and de.sorunome.msc2409.push_ephemeral: true%s", restart)
	}
	return list
}

// claims says whether a user is in the registration's namespaces, which match from the first character on.
func claims(r *appservice.Registration, user string) (claimed, exclusive bool) {
	for _, ns := range r.Namespaces.Users {
		// LoadRegistration has compiled it before.
		if re, err := regexp.Compile("^(?:" + ns.Regex + ")"); err == nil && re.MatchString(user) {
			claimed, exclusive = true, exclusive || ns.Exclusive
		}
	}
	return claimed, exclusive
}

// fieldLine finds where a field begins in a registration that was read without mistakes; the first line when it is not
// there.
func fieldLine(path, field string) int {
	data, err := os.ReadFile(path)
	if err != nil {
		return 1
	}
	for i, line := range strings.Split(string(data), "\n") {
		if rest, found := strings.CutPrefix(strings.Trim(line, "\"' "), field); found && strings.HasPrefix(strings.TrimLeft(rest, "\"' "), ":") {
			return i + 1
		}
	}
	return 1
}
