package appservice

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Registration is what a homeserver is told about an appservice (Application Service API, "Registration"). The file is
// YAML; both sides read it.
type Registration struct {
	ID              string // unique among the homeserver's appservices; part of the path of ping
	URL             string // where the homeserver reaches the appservice, without path
	ASToken         string // what the appservice authenticates with
	HSToken         string // what the homeserver authenticates with
	SenderLocalpart string // localpart of the bot
	RateLimited     bool
	Namespaces      Namespaces
	Protocols       []string

	// ReceiveEphemeral: typing, receipts, presence, and on Synapse to-device messages too. Written and read as
	// receive_ephemeral (Matrix 1.13) and de.sorunome.msc2409.push_ephemeral; either one means yes.
	ReceiveEphemeral bool
	// MSC3202: device lists and key counts in transactions, org.matrix.msc3202.
	MSC3202 bool
	// MSC4190 opts in to devices by PUT, io.element.msc4190. Older Synapse demands it; on a present one it only makes
	// the homeserver refuse what is not used here: appservice login, and register without inhibit_login.
	MSC4190 bool
	// DeviceManagement is the same opt-in as Tuwunel spells it, device_management.
	DeviceManagement bool
}

// Namespaces are the users, aliases and rooms that the appservice claims.
type Namespaces struct {
	Users, Aliases, Rooms []Namespace
}

// Namespace claims what a regular expression matches from the first character on.
type Namespace struct {
	Exclusive bool
	Regex     string
}

// Mistake is one thing that is wrong in a file.
type Mistake struct {
	File    string
	Line    int
	Field   string // "" when it is the file as a whole
	Problem string
	Mend    string
}

// Error gives "FILE:LINE: FIELD: PROBLEM; MEND". It never holds a token.
func (m Mistake) Error() string {
	s := fmt.Sprintf("%s:%d: ", m.File, m.Line)
	if m.Field != "" {
		s += m.Field + ": "
	}
	return s + m.Problem + "; " + m.Mend
}

// Mistakes is every mistake of a file, in the order of its lines. It is the error of [LoadRegistration].
type Mistakes []Mistake

// Error gives one mistake a line.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i := range m {
		lines[i] = m[i].Error()
	}
	return strings.Join(lines, "\n")
}

// LoadRegistration reads a registration file. When the file is wrong the error is a [Mistakes] with all there is to
// mend. Keys with a dot in their name that are not known belong to somebody else and are passed over.
func LoadRegistration(path string) (*Registration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the registration: %w", err)
	}
	return ParseRegistration(path, data)
}

// ParseRegistration is [LoadRegistration] for bytes that were read already; name stands for the file in mistakes.
func ParseRegistration(name string, data []byte) (*Registration, error) {
	p := &registrationParser{file: name}
	reg := p.parse(data)
	if len(p.mistakes) > 0 {
		slices.SortStableFunc(p.mistakes, func(a, b Mistake) int { return a.Line - b.Line })
		return nil, p.mistakes
	}
	return reg, nil
}

type registrationParser struct {
	file     string
	mistakes Mistakes
}

func (p *registrationParser) wrong(line int, field, problem, mend string) {
	p.mistakes = append(p.mistakes, Mistake{p.file, line, field, problem, mend})
}

func (p *registrationParser) parse(data []byte) *Registration {
	reg := new(Registration)
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		line, problem := yamlMistake(err)
		p.wrong(line, "", "it is not YAML: "+problem, "mend the line, or generate the file anew")
		return reg
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		p.wrong(max(doc.Line, 1), "", "there are no fields in it", "generate the file anew")
		return reg
	}
	root := doc.Content[0]
	seen := p.fields("", root)
	var ephemeral, pushEphemeral bool
	for _, f := range []struct {
		name string
		read func(string, *yaml.Node)
		must bool
	}{
		{"id", p.text(&reg.ID, nil), true},
		{"url", p.text(&reg.URL, checkURL), true},
		{"as_token", p.text(&reg.ASToken, checkToken), true},
		{"hs_token", p.text(&reg.HSToken, checkToken), true},
		{"sender_localpart", p.text(&reg.SenderLocalpart, checkLocalpart), true},
		{"namespaces", p.namespaces(&reg.Namespaces), true},
		{"rate_limited", p.flag(&reg.RateLimited), false},
		{"protocols", p.protocols(&reg.Protocols), false},
		{"receive_ephemeral", p.flag(&ephemeral), false},
		{"de.sorunome.msc2409.push_ephemeral", p.flag(&pushEphemeral), false},
		{"org.matrix.msc3202", p.flag(&reg.MSC3202), false},
		{"io.element.msc4190", p.flag(&reg.MSC4190), false},
		{"device_management", p.flag(&reg.DeviceManagement), false},
	} {
		node, found := seen[f.name]
		delete(seen, f.name)
		if found {
			f.read(f.name, node)
		} else if f.must {
			p.wrong(root.Line, f.name, "it is missing", "add it, or generate the file anew")
		}
	}
	for name, node := range seen {
		if !strings.Contains(name, ".") {
			p.wrong(node.Line, name, "there is no such field", "remove it, or mend its spelling")
		}
	}
	reg.ReceiveEphemeral = ephemeral || pushEphemeral
	if reg.ASToken != "" && reg.ASToken == reg.HSToken {
		p.wrong(root.Line, "hs_token", "it is the same as as_token", "give each side a secret of its own")
	}
	return reg
}

// fields gives a mapping's values by name, and reports names that come twice.
func (p *registrationParser) fields(field string, node *yaml.Node) map[string]*yaml.Node {
	out := make(map[string]*yaml.Node, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolve(node.Content[i+1])
		if key.Kind != yaml.ScalarNode {
			p.wrong(key.Line, field, "a field's name must be text", "mend the name")
			continue
		}
		if first, twice := out[key.Value]; twice {
			p.wrong(key.Line, join(field, key.Value), fmt.Sprintf("it is there already, on line %d", first.Line), "remove one of them")
			continue
		}
		out[key.Value] = value
	}
	return out
}

func (p *registrationParser) text(into *string, check func(string) (problem, mend string)) func(string, *yaml.Node) {
	return func(field string, node *yaml.Node) {
		switch {
		case node.Kind != yaml.ScalarNode:
			p.wrong(node.Line, field, "it must be text", "write it in quotes on one line")
			return
		case node.Tag != "!!str":
			p.wrong(node.Line, field, "it must be text, and YAML reads it as "+strings.TrimPrefix(node.Tag, "!!"), "write it in quotes")
			return
		case node.Value == "":
			p.wrong(node.Line, field, "it is empty", "fill it in, or generate the file anew")
			return
		}
		if check != nil {
			if problem, mend := check(node.Value); problem != "" {
				p.wrong(node.Line, field, problem, mend)
				return
			}
		}
		*into = node.Value
	}
}

func (p *registrationParser) protocols(into *[]string) func(string, *yaml.Node) {
	return func(field string, node *yaml.Node) {
		if node.Tag == "!!null" {
			return
		}
		if node.Kind != yaml.SequenceNode {
			p.wrong(node.Line, field, "it must be a list", "write it as [one, two]")
			return
		}
		for i, n := range node.Content {
			var s string
			at := fmt.Sprintf("%s[%d]", field, i)
			p.text(&s, checkProtocol)(at, resolve(n))
			if s != "" && slices.Contains(*into, s) {
				p.wrong(n.Line, at, "it is there already", "remove one of them")
				continue
			}
			*into = append(*into, s)
		}
	}
}

func (p *registrationParser) flag(into *bool) func(string, *yaml.Node) {
	return func(field string, node *yaml.Node) {
		if node.Kind != yaml.ScalarNode || node.Tag != "!!bool" || node.Decode(into) != nil {
			p.wrong(node.Line, field, "it must be true or false", "write true or false, without quotes")
		}
	}
}

func (p *registrationParser) namespaces(into *Namespaces) func(string, *yaml.Node) {
	return func(field string, node *yaml.Node) {
		if node.Kind != yaml.MappingNode {
			p.wrong(node.Line, field, "it must have users, aliases and rooms", "generate the file anew")
			return
		}
		seen := p.fields(field, node)
		for name, list := range map[string]*[]Namespace{"users": &into.Users, "aliases": &into.Aliases, "rooms": &into.Rooms} {
			if n, found := seen[name]; found {
				p.namespaceList(field+"."+name, n, list)
				delete(seen, name)
			} else if name == "users" {
				p.wrong(node.Line, "namespaces.users", "it is missing, so there can be no ghosts", "add the ghosts' regular expression, or generate the file anew")
			}
		}
		for name, n := range seen {
			p.wrong(n.Line, field+"."+name, "there is no such namespace", "it must be users, aliases or rooms")
		}
	}
}

func (p *registrationParser) namespaceList(field string, node *yaml.Node, into *[]Namespace) {
	none := node.Tag == "!!null"
	if !none && node.Kind != yaml.SequenceNode {
		p.wrong(node.Line, field, "it must be a list", "write it as a list of regex and exclusive")
		return
	}
	if field == "namespaces.users" && (none || len(node.Content) == 0) {
		p.wrong(node.Line, field, "it is empty, so there can be no ghosts", "add the ghosts' regular expression, or generate the file anew")
	}
	for i, n := range node.Content {
		n, at := resolve(n), fmt.Sprintf("%s[%d]", field, i)
		if n.Kind != yaml.MappingNode {
			p.wrong(n.Line, at, "it must have regex and exclusive", "write it as {exclusive: true, regex: '…'}")
			continue
		}
		var ns Namespace
		seen := p.fields(at, n)
		if regex, found := seen["regex"]; found {
			p.text(&ns.Regex, checkRegex)(at+".regex", regex)
		} else {
			p.wrong(n.Line, at+".regex", "it is missing", "add the regular expression")
		}
		if exclusive, found := seen["exclusive"]; found {
			p.flag(&ns.Exclusive)(at+".exclusive", exclusive)
		} else {
			p.wrong(n.Line, at+".exclusive", "it is missing", "write exclusive: true to keep others out")
		}
		*into = append(*into, ns)
	}
}

func checkURL(s string) (string, string) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "it is not an http or https URL", "write it like http://localhost:29400"
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "it has a user, a query or a fragment", "write it like http://localhost:29400"
	}
	return "", ""
}

func checkToken(s string) (string, string) {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._~", c)) {
			return "it has characters that some homeservers put into a URL unescaped", "use only letters, digits and -._~"
		}
	}
	return "", ""
}

func checkLocalpart(s string) (string, string) {
	if err := checkCharacters(s); err != nil {
		return "it has characters that a localpart may not have", "write only the part between @ and the colon, of a-z, 0-9 and ._=-/+"
	}
	return "", ""
}

func checkProtocol(s string) (string, string) {
	if !isName(s) || strings.ContainsAny(s, " /?#%") {
		return "it is no name that a path can have", "write a short name, of letters and digits"
	}
	return "", ""
}

func checkRegex(s string) (string, string) {
	if _, err := regexp.Compile(s); err != nil {
		return "it is not a regular expression that both sides understand: " + err.Error(), "write it without look-around and back-references"
	}
	return "", ""
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// yamlMistake takes the line out of an error of the YAML reader, which gives it as text only.
func yamlMistake(err error) (line int, problem string) {
	s := err.Error()
	if m := yamlLine.FindStringSubmatch(s); m != nil {
		_, _ = fmt.Sscan(m[1], &line)
		return line, s[len(m[0]):]
	}
	return 1, strings.TrimPrefix(s, "yaml: ")
}

func resolve(n *yaml.Node) *yaml.Node {
	// An alias leads to a node that is not an alias: YAML knows no other.
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}
