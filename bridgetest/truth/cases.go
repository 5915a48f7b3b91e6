package truth

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/trestle-bridge/trestle/bridgetest"
)

//go:embed cases/*.yaml
var files embed.FS

// Case is a sequence of requests, in a world of ghosts of its own.
type Case struct {
	Name  string   `yaml:"case"`
	On    []string `yaml:"on"`    // personalities, in lower case; empty: all
	Needs []string `yaml:"needs"` // of the target: "limits", "moderation"
	Steps []Step   `yaml:"steps"`
}

// Step is one request and its answer, or something done beforehand.
type Step struct {
	Register string `yaml:"register"` // a ghost that the service registers
	Moderate string `yaml:"moderate"` // a ghost that is put into the state To
	To       string `yaml:"to"`

	Do      string            `yaml:"do"` // method and path
	As      string            `yaml:"as"` // whose token; "service" when empty, "none", "wrong"
	Body    any               `yaml:"body"`
	Raw     string            `yaml:"raw"` // a body that is no JSON
	Headers map[string]string `yaml:"headers"`

	Answer    `yaml:",inline"`
	But       map[string]Other  `yaml:"but"`       // other answers, by personality
	Keep      map[string]string `yaml:"keep"`      // names for fields of the answer, for later steps
	Unordered bool              `yaml:"unordered"` // the answer is a list in no order
	Varies    []string          `yaml:"varies"`    // fields that are not compared with the real homeserver's
}

// Answer is what is expected.
type Answer struct {
	Want   string            `yaml:"want"` // status and error code: "404 M_NOT_FOUND"; "200 text" for one that is no JSON; "left out"; "no answer"
	Has    map[string]any    `yaml:"has"`
	Lacks  []string          `yaml:"lacks"`
	Header map[string]string `yaml:"header"`
}

// What may stand in the place of a status.
const (
	leftOut  = "left out"  // the request is not made
	noAnswer = "no answer" // the connection ends
)

// Other is an answer that may be written as its status and code alone.
type Other Answer

// UnmarshalYAML reads either form.
func (o *Other) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		o.Want = node.Value
		return nil
	}
	return node.Decode((*Answer)(o))
}

// Cases reads all cases.
func Cases() ([]Case, error) {
	entries, err := files.ReadDir("cases")
	if err != nil {
		return nil, fmt.Errorf("reading the cases: %w", err)
	}
	var all []Case
	for _, entry := range entries {
		data, err := files.ReadFile("cases/" + entry.Name())
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", entry.Name(), err)
		}
		var cases []Case
		decoder := yaml.NewDecoder(bytes.NewReader(data))
		decoder.KnownFields(true)
		if err := decoder.Decode(&cases); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading %s: %w", entry.Name(), err)
		}
		all = append(all, cases...)
	}
	return all, nil
}

// key is how the cases name a personality.
func key(p bridgetest.Personality) string { return strings.ToLower(p.String()) }

// expected is the answer of a personality; SynapseOAuth answers as Synapse where nothing else is said.
func (s *Step) expected(p bridgetest.Personality) Answer {
	if other, there := s.But[key(p)]; there {
		return Answer(other)
	}
	return s.Answer
}

func (c *Case) on(p bridgetest.Personality) bool {
	return len(c.On) == 0 || slices.Contains(c.On, key(p))
}

// split takes the status and the error code apart.
func (a *Answer) split() (status int, code string, err error) {
	number, code, _ := strings.Cut(a.Want, " ")
	if status, err = strconv.Atoi(number); err != nil {
		return 0, "", fmt.Errorf("%q is not a status and an error code", a.Want)
	}
	return status, code, nil
}
