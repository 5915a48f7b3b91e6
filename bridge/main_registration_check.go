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

// tellAgain ends what is to be done about a registration that the homeserver has a copy of.
const tellAgain = "; then restart the homeserver (Continuwuity and Tuwunel: register it again)"

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
	// Whoever made the registration anew has to tell the homeserver too.
	wrong := func(field, mend, format string, args ...any) {
		list = append(list, appservice.Mistake{File: path, Line: fieldLine(path, field), Field: field, Problem: fmt.Sprintf(format, args...),
			Mend: mend + tellAgain})
	}
	const equal = "make them equal"
	if r.ID != c.ID && !skip("appservice.id") {
		wrong("id", equal, "is %q, and the configuration has %q in appservice.id", r.ID, c.ID)
	}
	if strings.TrimRight(r.URL, "/") != c.Address && !skip("appservice.address") && !skip("appservice.listen") {
		wrong("url", equal, "is %s, and the configuration has %s in appservice.address", quoteValue(r.URL), quoteValue(c.Address))
	}
	if r.SenderLocalpart != c.Bot && !skip("appservice.bot") {
		wrong("sender_localpart", equal, "is %q, and the configuration has %q in appservice.bot", r.SenderLocalpart, c.Bot)
	}
	if !skip("appservice.ghosts") && !skip("homeserver.domain") {
		compareNamespaces(cfg, r, func(mend, format string, args ...any) { wrong("namespaces", mend, format, args...) })
	}
	if !r.ReceiveEphemeral {
		wrong("receive_ephemeral", "write receive_ephemeral: true and de.sorunome.msc2409.push_ephemeral: true", "is not true, so there would be no typing")
	}
	return list
}

// registrationNotes are what works in a registration, and is probably not wanted. It must have been read without mistakes.
func registrationNotes(cfg *Config, n Network) (notes []appservice.Mistake) {
	path := cfg.Appservice.Registration
	r, err := appservice.LoadRegistration(path)
	if err != nil {
		return nil
	}
	say := func(field, mend, format string, args ...any) {
		notes = append(notes, appservice.Mistake{File: path, Line: fieldLine(path, field), Field: field, Problem: fmt.Sprintf(format, args...), Mend: mend + tellAgain})
	}
	answered := protocols(n)
	for _, protocol := range answered {
		if !slices.Contains(r.Protocols, protocol) {
			say("protocols", fmt.Sprintf("write protocols: [%s]", quoteYAML(protocol)), "%s is not listed, so nobody on Matrix can search %s", protocol, n.Info().Name)
		}
	}
	for _, protocol := range r.Protocols {
		if !slices.Contains(answered, protocol) {
			say("protocols", "remove it", "%q is listed, and this bridge has nothing to search by that name", protocol)
		}
	}
	for _, key := range []struct {
		name, without string
		set           bool
	}{
		{"org.matrix.msc3202", "there are no device lists and key counts, for encryption", r.MSC3202},
		{"io.element.msc4190", "older Synapse makes no devices for ghosts", r.MSC4190},
		{"device_management", "Tuwunel makes no devices for ghosts", r.DeviceManagement},
	} {
		if !key.set {
			say(key.name, "write "+key.name+": true", "is not true, and without it %s", key.without)
		}
	}
	for _, ns := range r.Namespaces.Aliases {
		if !ns.Exclusive {
			say("namespaces", "write exclusive: true", "the aliases %s are not exclusive, so that anybody may take them", quoteValue(ns.Regex))
		}
	}
	return notes
}

func compareNamespaces(cfg *Config, r *appservice.Registration, wrong func(mend, format string, args ...any)) {
	prefix, domain := cfg.Appservice.Ghosts, cfg.Homeserver.Domain
	// A name that nobody has, of all characters that names are escaped to, stands for all.
	claimed, exclusive := claims(r, "@"+prefix+"a0._=/+-:"+domain)
	switch {
	case !claimed:
		regex := "^@" + regexp.QuoteMeta(prefix) + ".*:" + regexp.QuoteMeta(domain) + "$"
		wrong("add {exclusive: true, regex: "+quoteYAML(regex)+"}", "no regex of users takes in the ghosts, such as @%sname:%s", prefix, domain)
	case !exclusive:
		wrong("write exclusive: true", "the ghosts are not exclusive, so anybody could register as one")
	}
	if _, everybody := claims(r, "@nobody-of-the-bridge:"+domain); everybody {
		wrong("write one that begins with ^@"+regexp.QuoteMeta(prefix), "a regex of users takes in everybody on %s, exclusively, so that nobody could register there", domain)
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
