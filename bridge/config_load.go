package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const maxConfigFile = 4 << 20

// LoadConfig reads the configuration file at path, applies the environment (entries "NAME=value", as os.Environ has them)
// and fills in the defaults. The `network:` section goes into the network's own structure. An error that is a
// [*ConfigError] lists every mistake at once; then neither the configuration nor the network may be used.
func LoadConfig(path string, environ []string, n Network) (*Config, error) {
	cfg, err := readConfig(path, environ, n)
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// Warnings are things in the configuration that work, and that are probably not wanted.
func (c *Config) Warnings() []Mistake { return c.warnings }

// readConfig is [LoadConfig], except that beside a [*ConfigError] it returns what could be read.
func readConfig(path string, environ []string, n Network) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parseConfig(path, data, environ, n)
}

// parseConfig is readConfig for bytes that were read already.
func parseConfig(path string, data []byte, environ []string, n Network) (*Config, error) {
	d := newDecoder(path)
	cfg := DefaultConfig(n.Info())
	doc := &document{Config: cfg}
	configurable, ok := n.(Configurable)
	if ok {
		doc.Network = configurable.Config()
	}
	value := reflect.ValueOf(doc).Elem()
	d.known = sections(value, "", map[string][]string{})

	root := d.parse(data)
	if root == nil {
		return cfg, &ConfigError{Mistakes: d.mistakes}
	}
	d.applyEnv(root, value, environ)
	d.decode(root, value, "", false)
	if !ok {
		if _, written := d.at["network"]; written && doc.Network != nil {
			d.wrong("network", n.Info().Name+" has no settings", "remove the section")
		}
	}
	d.finish(cfg)
	d.check(cfg, n)
	if ok {
		d.checkNetwork(configurable)
	}
	if len(d.mistakes) > 0 {
		sortMistakes(d.mistakes)
		return cfg, &ConfigError{Mistakes: d.mistakes, misspelt: slices.Collect(maps.Keys(d.typo))}
	}
	sortMistakes(d.warnings)
	cfg.warnings = d.warnings
	return cfg, nil
}

// parse makes the tree of the file, or reports why there is none.
func (d *decoder) parse(data []byte) *yaml.Node {
	if len(data) > maxConfigFile {
		d.mistakes = append(d.mistakes, Mistake{File: d.file, Text: "is larger than 4 MiB", Mend: "name the configuration file"})
		return nil
	}
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	err := decoder.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return &yaml.Node{Kind: yaml.MappingNode, Line: 1} // an empty file: everything that is required is missing
	}
	if err != nil {
		d.mistakes = append(d.mistakes, d.syntax(err, data))
		return nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return &yaml.Node{Kind: yaml.MappingNode, Line: root.Line}
	}
	if root.Kind != yaml.MappingNode {
		d.mistakes = append(d.mistakes, Mistake{File: d.file, Line: root.Line, Text: "must be sections with keys, and is " + kindName(root), Mend: "begin with the line \"homeserver:\""})
		return nil
	}
	if err := decoder.Decode(&more); err == nil && len(more.Content) > 0 {
		d.mistakes = append(d.mistakes, Mistake{File: d.file, Line: more.Content[0].Line, Text: "a second document begins here", Mend: "remove the line --- above it"})
	} else if err != nil && !errors.Is(err, io.EOF) {
		d.mistakes = append(d.mistakes, d.syntax(err, data))
	}
	return root
}

// syntax makes a mistake of an error of the YAML reader, without the parts of it that quote a value.
func (d *decoder) syntax(err error, data []byte) Mistake {
	m := Mistake{File: d.file, Line: 1, Text: strings.TrimPrefix(err.Error(), "yaml: "), Mend: "mend the line, or the one above it"}
	if found := yamlLine.FindStringSubmatch(m.Text); found != nil {
		m.Line, _ = strconv.Atoi(found[1])
		m.Text = m.Text[len(found[0]):]
	}
	switch {
	case strings.HasPrefix(m.Text, "unknown anchor"):
		// The reader names the anchor, which is the value itself, and not the line.
		if name := strings.Split(m.Text, "'"); len(name) == 3 {
			if at := bytes.Index(data, []byte("*"+name[1])); at >= 0 {
				m.Line = 1 + bytes.Count(data[:at], []byte("\n"))
			}
		}
		m.Text, m.Mend = "a value that begins with * is an alias in YAML", "put the value in quotes"
	case strings.HasPrefix(m.Text, "found character that cannot start any token"):
		m.Mend = "indent with spaces, not tabs, and put a value that begins with @, ` or % in quotes"
	}
	m.Text = "is not YAML: " + m.Text
	return m
}

// finish fills in the defaults that depend on other settings, and makes paths relative to the file.
func (d *decoder) finish(cfg *Config) {
	if _, given := d.at["appservice.address"]; !given && !d.isBad("appservice.listen") {
		cfg.Appservice.Address = addressOf(cfg.Appservice.Listen)
	}
	for _, url := range []*string{&cfg.Homeserver.Address, &cfg.Appservice.Address, &cfg.Media.PublicURL} {
		*url = strings.TrimRight(*url, "/")
	}
	dir := filepath.Dir(d.file)
	for _, path := range []*string{&cfg.Appservice.Registration, &cfg.Log.File, &cfg.Media.Cache} {
		*path = besideFile(dir, *path)
	}
	if path, isSQLite := strings.CutPrefix(cfg.Database, "sqlite:"); isSQLite && !strings.HasPrefix(path, "//") && path != ":memory:" {
		cfg.Database = "sqlite:" + besideFile(dir, path)
	}
}

func besideFile(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
