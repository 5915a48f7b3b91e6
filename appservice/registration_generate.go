package appservice

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// GenerateOptions is what [Generate] needs to know. AliasPrefix and Protocols may be empty.
type GenerateOptions struct {
	ID              string // "irc"
	URL             string // "http://localhost:29400"
	Domain          string // the homeserver's name: "example.org"
	SenderLocalpart string // the bot: "ircbot"
	GhostPrefix     string // what the localpart of every ghost starts with: "irc_"
	AliasPrefix     string // what the localpart of every alias starts with: "irc_"
	Protocols       []string
}

// Generate makes a registration with new random tokens that asks for everything that the framework can use, in the
// stable and in the unstable spelling. The ghosts' namespace is exclusive, and the bot is claimed by its full name.
func Generate(opts GenerateOptions) (*Registration, error) {
	var errs []error
	wrong := func(field, problem, mend string) {
		if problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s; %s", field, problem, mend))
		}
	}
	if opts.ID == "" {
		wrong("id", "it is empty", "name the bridge, like irc")
	}
	problem, mend := checkURL(opts.URL)
	wrong("url", problem, mend)
	if opts.Domain == "" || strings.ContainsAny(opts.Domain, "/@ \t\r\n") {
		wrong("domain", "it is not a server name", "write the part after the colon of the homeserver's user IDs")
	}
	for field, value := range map[string]string{"sender localpart": opts.SenderLocalpart, "ghost prefix": opts.GhostPrefix} {
		if value == "" {
			wrong(field, "it is empty", "fill it in")
			continue
		}
		problem, mend := checkLocalpart(value)
		wrong(field, problem, mend)
	}
	for _, protocol := range opts.Protocols {
		problem, mend := checkProtocol(protocol)
		wrong("protocol", problem, mend)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("generate a registration: %w", errors.Join(errs...))
	}
	domain := regexp.QuoteMeta(opts.Domain)
	reg := &Registration{
		ID:              opts.ID,
		URL:             opts.URL,
		ASToken:         newToken(),
		HSToken:         newToken(),
		SenderLocalpart: opts.SenderLocalpart,
		Namespaces: Namespaces{Users: []Namespace{
			{Exclusive: true, Regex: "^@" + regexp.QuoteMeta(opts.SenderLocalpart) + ":" + domain + "$"},
			{Exclusive: true, Regex: "^@" + regexp.QuoteMeta(opts.GhostPrefix) + ".*:" + domain + "$"},
		}},
		Protocols:        opts.Protocols,
		ReceiveEphemeral: true,
		MSC3202:          true,
		MSC4190:          true,
		DeviceManagement: true,
	}
	if opts.AliasPrefix != "" {
		reg.Namespaces.Aliases = []Namespace{{Exclusive: true, Regex: "^#" + regexp.QuoteMeta(opts.AliasPrefix) + ".*:" + domain + "$"}}
	}
	return reg, nil
}

// newToken gives 32 random bytes in characters that need no escaping anywhere in a URL: some homeservers also send the
// token as a query parameter, unescaped.
func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Save writes the registration to a new file that only its owner can read (mode 0600). The file appears whole or not at
// all, and one that is there already is left as it is: the error then is an fs.ErrExist, because the homeserver knows
// the old tokens.
func (r *Registration) Save(path string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".registration-*") // CreateTemp makes it 0600
	if err != nil {
		return fmt.Errorf("save the registration: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(r.YAML())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save the registration: %w", err)
	}
	// A hard link is the one step that both appears at once and refuses to replace.
	if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("save the registration: %s is there already; the homeserver knows its tokens, so remove it yourself if they are to change: %w", path, fs.ErrExist)
	} else if err != nil {
		if _, statErr := os.Lstat(path); statErr == nil {
			return fmt.Errorf("save the registration: %s: %w", path, fs.ErrExist)
		}
		if err = os.Rename(f.Name(), path); err != nil { // a file system without hard links
			return fmt.Errorf("save the registration: %w", err)
		}
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}

// YAML gives the registration as a commented file. It holds both tokens.
func (r *Registration) YAML() []byte {
	var b strings.Builder
	section := func(comment string) {
		b.WriteByte('\n')
		for line := range strings.Lines(comment) {
			b.WriteString("# " + strings.TrimSpace(line) + "\n")
		}
	}
	field := func(name, value string) { b.WriteString(name + ": " + value + "\n") }
	flag := func(name string, value bool) { field(name, strconv.FormatBool(value)) }

	b.WriteString("# Tells the homeserver about the bridge. Synapse: name this file in app_service_config_files of homeserver.yaml.\n" +
		"# Dendrite: in app_service_api.config_files of dendrite.yaml. Then restart the homeserver. Continuwuity, Tuwunel:\n" +
		"# !admin appservices register in the admin room. Keep it secret: it holds both tokens.\n")
	section("The name of this bridge, unique among the homeserver's appservices.")
	field("id", quote(r.ID))
	section("Where the homeserver reaches the bridge.")
	field("url", quote(r.URL))
	section("What the bridge shows the homeserver, and what the homeserver shows the bridge. Letters, digits and -._~ only.")
	field("as_token", quote(r.ASToken))
	field("hs_token", quote(r.HSToken))
	section("The bridge's bot.")
	field("sender_localpart", quote(r.SenderLocalpart))
	section("Ghosts may send as fast as the network does.")
	flag("rate_limited", r.RateLimited)
	section("Users and aliases that are the bridge's own. Regular expressions match from the first character on.")
	b.WriteString("namespaces:\n")
	for _, ns := range []struct {
		name string
		list []Namespace
	}{{"users", r.Namespaces.Users}, {"aliases", r.Namespaces.Aliases}, {"rooms", r.Namespaces.Rooms}} {
		if len(ns.list) == 0 {
			b.WriteString("  " + ns.name + ": []\n")
			continue
		}
		b.WriteString("  " + ns.name + ":\n")
		for _, n := range ns.list {
			b.WriteString("    - exclusive: " + strconv.FormatBool(n.Exclusive) + "\n      regex: " + quote(n.Regex) + "\n")
		}
	}
	section("Networks that clients can search through this bridge.")
	quoted := make([]string, len(r.Protocols))
	for i, p := range r.Protocols {
		quoted[i] = quote(p)
	}
	field("protocols", "["+strings.Join(quoted, ", ")+"]")
	section("Typing, read receipts and presence; on Synapse messages between devices too. The second is the old name.")
	flag("receive_ephemeral", r.ReceiveEphemeral)
	flag("de.sorunome.msc2409.push_ephemeral", r.ReceiveEphemeral)
	section("Device lists and key counts, for encryption. Synapse also needs msc3202_transaction_extensions and\n" +
		"msc2409_to_device_messages_enabled under experimental_features.")
	flag("org.matrix.msc3202", r.MSC3202)
	section("The bridge makes devices for its ghosts (MSC4190). Older Synapse needs the first; a present one then only refuses\n" +
		"appservice login, which the bridge does not use. Tuwunel needs the second.")
	flag("io.element.msc4190", r.MSC4190)
	flag("device_management", r.DeviceManagement)
	return []byte(b.String())
}

// quote writes a YAML scalar: in single quotes, where nothing but the quote itself is special, unless it has characters
// that only double quotes can escape; YAML reads the escapes that strconv writes.
func quote(s string) string {
	for _, c := range s {
		if !strconv.IsPrint(c) {
			return strconv.Quote(s)
		}
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}
