package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/trestle-bridge/trestle/appservice"
)

// registrationMistakes reads the registration and compares it with the configuration, except for the settings that skip
// names.
func registrationMistakes(cfg *Config, skip func(path string) bool) []error {
	path := cfg.Appservice.Registration
	registration, err := appservice.LoadRegistration(path)
	if err != nil {
		return unfold(path, err)
	}
	return compareRegistration(cfg, registration, skip)
}

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
// registration, so a bridge that follows something else would not work. Settings that skip names are not compared.
func compareRegistration(cfg *Config, r *appservice.Registration, skip func(path string) bool) []error {
	if skip == nil {
		skip = func(string) bool { return false }
	}
	var list []error
	path, c := cfg.Appservice.Registration, &cfg.Appservice
	wrong := func(field, format string, args ...any) {
		line := fieldLine(path, field)
		list = append(list, fmt.Errorf("%s:%d: %s: %s", path, line, field, fmt.Sprintf(format, args...)))
	}
	// Whoever made the registration anew has to restart the homeserver too.
	const restart = "; then restart the homeserver"
	if r.ID != c.ID && !skip("appservice.id") {
		wrong("id", "is %q, and the configuration has %q in appservice.id; make them equal%s", r.ID, c.ID, restart)
	}
	if strings.TrimRight(r.URL, "/") != c.Address && !skip("appservice.address") && !skip("appservice.listen") {
		wrong("url", "is %s, and the configuration has %s in appservice.address; make them equal%s", quoteValue(r.URL), quoteValue(c.Address), restart)
	}
	if r.SenderLocalpart != c.Bot && !skip("appservice.bot") {
		wrong("sender_localpart", "is %q, and the configuration has %q in appservice.bot; make them equal%s", r.SenderLocalpart, c.Bot, restart)
	}
	if !skip("appservice.ghosts") && !skip("homeserver.domain") {
		compareNamespaces(cfg, r, func(format string, args ...any) { wrong("namespaces", format+restart, args...) })
	}
	if !r.ReceiveEphemeral {
		wrong("receive_ephemeral", "is not true, so there would be no typing; write receive_ephemeral: true and de.sorunome.msc2409.push_ephemeral: true%s", restart)
	}
	return list
}

// registrationNotes are what works in a registration, and is probably not wanted. It must have been read without mistakes.
func registrationNotes(cfg *Config, n Network) (notes []string) {
	path := cfg.Appservice.Registration
	r, err := appservice.LoadRegistration(path)
	if err != nil {
		return nil
	}
	say := func(format string, args ...any) {
		notes = append(notes, fmt.Sprintf("%s:%d: protocols: ", path, fieldLine(path, "protocols"))+fmt.Sprintf(format, args...)+"; then restart the homeserver")
	}
	answered := protocols(n)
	for _, protocol := range answered {
		if !slices.Contains(r.Protocols, protocol) {
			say("%s is not listed, so nobody on Matrix can search %s; write protocols: [%s]", protocol, n.Info().Name, quoteYAML(protocol))
		}
	}
	for _, protocol := range r.Protocols {
		if !slices.Contains(answered, protocol) {
			say("%q is listed, and this bridge has nothing to search by that name; remove it", protocol)
		}
	}
	return notes
}

func compareNamespaces(cfg *Config, r *appservice.Registration, wrong func(format string, args ...any)) {
	prefix, domain := cfg.Appservice.Ghosts, cfg.Homeserver.Domain
	// A name that nobody has, of all characters that names are escaped to, stands for all.
	claimed, exclusive := claims(r, "@"+prefix+"a0._=/+-:"+domain)
	switch {
	case !claimed:
		regex := "^@" + regexp.QuoteMeta(prefix) + ".*:" + regexp.QuoteMeta(domain) + "$"
		wrong("no regex of users takes in the ghosts, such as @%sname:%s; add {exclusive: true, regex: %s}", prefix, domain, quoteYAML(regex))
	case !exclusive:
		wrong("the ghosts are not exclusive, so anybody could register as one; write exclusive: true")
	}
	if _, everybody := claims(r, "@nobody-of-the-bridge:"+domain); everybody {
		wrong("a regex of users takes in everybody on %s, exclusively, so that nobody could register there; write one that begins with ^@%s",
			domain, regexp.QuoteMeta(prefix))
	}
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
