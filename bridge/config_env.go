package bridge

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// The environment overrides the file: TRESTLE_ and the setting's path in capitals, with _ for every dot, as in
// TRESTLE_HOMESERVER_ADDRESS, TRESTLE_BRIDGE_PLUMB_0_CHANNEL or TRESTLE_NETWORK_NICK. With _FILE at its end the variable
// names a file that holds the value. A list of single values is separated by commas. An empty variable is an empty value.
const (
	envPrefix     = "TRESTLE_"
	envTestPrefix = "TRESTLE_TEST_"
	envFileSuffix = "_FILE"
	maxSecretFile = 64 << 10
)

// Kubernetes sets these for a service that is called trestle.
var envService = regexp.MustCompile(`^TRESTLE_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_.*)?)$`)

// override is a variable that was found to mean a setting.
type override struct {
	name   string
	path   []string
	value  string
	list   bool // several values, separated by commas
	secret bool // from a file
}

// applyEnv writes what the environment says into the tree of the file, so that it is decoded like the rest.
func (d *decoder) applyEnv(root *yaml.Node, doc reflect.Value, environ []string) {
	var found []override
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || strings.HasPrefix(name, envTestPrefix) || envService.MatchString(name) {
			continue
		}
		if o, ok := d.resolveEnv(root, doc, name, value); ok {
			found = append(found, o)
		}
	}
	slices.SortFunc(found, func(a, b override) int {
		return cmp.Or(slices.CompareFunc(a.path, b.path, compareStep), cmp.Compare(a.name, b.name))
	})
	for i, o := range found {
		if i > 0 && slices.Equal(found[i-1].path, o.path) {
			d.wrongEnv(o.name, strings.Join(o.path, "."), "the same setting is in "+found[i-1].name, "remove one of the two variables")
			continue
		}
		d.override(root, o)
	}
}

// compareStep puts list entries in their order, so that the tenth follows the ninth.
func compareStep(a, b string) int {
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}

func (d *decoder) wrongEnv(name, path, text, mend string) {
	d.bad[path] = true
	d.mistakes = append(d.mistakes, Mistake{File: d.file, Env: name, Path: path, Text: text, Mend: mend})
}

func (d *decoder) resolveEnv(root *yaml.Node, doc reflect.Value, name, value string) (override, bool) {
	rest := strings.TrimPrefix(name, envPrefix)
	if path, list, ok := envPath(rest, doc, root); ok {
		return override{name: name, path: path, value: value, list: list}, true
	}
	if base, isFile := strings.CutSuffix(rest, envFileSuffix); isFile {
		if path, list, ok := envPath(base, doc, root); ok {
			content, err := readSecret(value)
			if err != nil {
				d.wrongEnv(name, strings.Join(path, "."), err.Error(), "name a file that the bridge can read")
				return override{}, false
			}
			return override{name: name, path: path, value: content, list: list, secret: true}, true
		}
	}
	mend := "remove the variable"
	if near := nearest(name, envNames(doc, envPrefix, 0)); near != "" {
		mend = "write " + near + ", or remove the variable"
	}
	d.wrongEnv(name, "", "there is no such setting", mend)
	return override{}, false
}

// readSecret reads a file that holds one value. Line ends after it do not belong to it.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", err
	}
	if len(content) > maxSecretFile {
		return "", fmt.Errorf("%s is larger than 64 KiB", path)
	}
	return strings.TrimRight(string(content), "\r\n"), nil
}

var envUnfit = regexp.MustCompile(`[^A-Z0-9]`)

// envName is how a key is written in a variable.
func envName(key string) string { return envUnfit.ReplaceAllString(strings.ToUpper(key), "_") }

// step takes a key off the front of what is left of a variable's name.
func step(rest, key string) (string, bool) {
	name := envName(key)
	if rest == name {
		return "", true
	}
	return strings.CutPrefix(rest, name+"_")
}

// envPath finds the setting that a variable means. Settings' names have underscores themselves, so every way of cutting
// the name up is tried.
func envPath(rest string, v reflect.Value, node *yaml.Node) (path []string, list, ok bool) {
	v = reach(v)
	switch kind := v.Kind(); {
	case rest == "":
		single := isSingle(v)
		ofSingles := kind == reflect.Slice && isSingle(reach(reflect.New(v.Type().Elem()).Elem()))
		return nil, ofSingles && !single, single || ofSingles
	case kind == reflect.Struct:
		for _, f := range fieldsOf(v) {
			if left, fits := step(rest, f.name); fits {
				if path, list, ok := envPath(left, f.value, child(node, f.name)); ok {
					return append([]string{f.name}, path...), list, true
				}
			}
		}
	case kind == reflect.Slice:
		index, left, _ := strings.Cut(rest, "_")
		n, err := strconv.Atoi(index)
		if err != nil || n < 0 || strconv.Itoa(n) != index {
			return nil, false, false
		}
		var entry *yaml.Node
		if node = target(node); node != nil && node.Kind == yaml.SequenceNode && n < len(node.Content) {
			entry = node.Content[n]
		}
		if path, list, ok := envPath(left, reflect.New(v.Type().Elem()).Elem(), entry); ok {
			return append([]string{index}, path...), list, true
		}
	case kind == reflect.Map && v.Type().Key().Kind() == reflect.String:
		return envMapPath(rest, v, node)
	}
	return nil, false, false
}

// envMapPath knows only the keys that the file or the defaults have: a new one could not be told from its parts.
func envMapPath(rest string, v reflect.Value, node *yaml.Node) (path []string, list, ok bool) {
	var keys []string
	for _, key := range v.MapKeys() {
		keys = append(keys, key.String())
	}
	if node = target(node); node != nil && node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(node.Content); i += 2 {
			keys = append(keys, node.Content[i].Value)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		left, fits := step(rest, key)
		if !fits {
			continue
		}
		if path, list, ok := envPath(left, reflect.New(v.Type().Elem()).Elem(), child(node, key)); ok {
			return append([]string{key}, path...), list, true
		}
	}
	return nil, false, false
}

// reach goes through pointers and filled interfaces to what a value is decoded into.
func reach(v reflect.Value) reflect.Value {
	for {
		switch {
		case v.Kind() == reflect.Pointer && v.IsNil():
			v = reflect.New(v.Type().Elem()).Elem()
		case v.Kind() == reflect.Pointer, v.Kind() == reflect.Interface && !v.IsNil():
			v = v.Elem()
		default:
			return v
		}
	}
}

func isSingle(v reflect.Value) bool {
	if isScalar(v.Kind()) {
		return true
	}
	pointer := reflect.New(v.Type())
	return custom(pointer) && v.Kind() != reflect.Slice && v.Kind() != reflect.Map
}

// envNames lists the variables of all settings that are not in lists or maps, to suggest one.
func envNames(v reflect.Value, prefix string, depth int) []string {
	if depth > maxDepth {
		return nil
	}
	v = reach(v)
	if v.Kind() != reflect.Struct || isSingle(v) {
		return []string{strings.TrimSuffix(prefix, "_")}
	}
	var names []string
	for _, f := range fieldsOf(v) {
		names = append(names, envNames(f.value, prefix+envName(f.name)+"_", depth+1)...)
	}
	return names
}

// target is the node that an alias stands for.
func target(node *yaml.Node) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func child(node *yaml.Node, key string) *yaml.Node {
	if node = target(node); node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}

// override puts a variable's value into the tree, making the sections and list entries that it needs.
func (d *decoder) override(root *yaml.Node, o override) {
	node := root
	for i, name := range o.path {
		var next yaml.Kind = yaml.MappingNode
		if i+1 < len(o.path) {
			if _, err := strconv.Atoi(o.path[i+1]); err == nil {
				next = yaml.SequenceNode
			}
		}
		path := strings.Join(o.path[:i+1], ".")
		fresh := &yaml.Node{Kind: next}
		if i+1 == len(o.path) {
			fresh = d.envNode(o)
		}
		d.envOf[fresh] = o.name
		slot, ok := d.slot(node, name, o, path)
		if !ok {
			return
		}
		old := *slot
		switch {
		case i+1 == len(o.path), old == nil, old.Kind == yaml.ScalarNode && old.Tag == "!!null":
			*slot = fresh
		case old.Kind == yaml.AliasNode:
			// What the alias stands for must stay as it is elsewhere.
			*slot = copyNode(old.Alias)
		case old.Kind != next:
			return // the file's own mistake, which decoding reports
		}
		node = *slot
	}
}

// slot finds or makes the place of a key or list entry.
func (d *decoder) slot(node *yaml.Node, name string, o override, path string) (**yaml.Node, bool) {
	if node.Kind == yaml.SequenceNode {
		index, _ := strconv.Atoi(name)
		if index > len(node.Content) {
			d.wrongEnv(o.name, path, fmt.Sprintf("the list has %d entries", len(node.Content)), fmt.Sprintf("give the next one the number %d", len(node.Content)))
			return nil, false
		}
		if index == len(node.Content) {
			node.Content = append(node.Content, nil)
		}
		return &node.Content[index], true
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == name {
			return &node.Content[i+1], true
		}
	}
	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}
	d.envOf[key] = o.name
	node.Content = append(node.Content, key, nil)
	return &node.Content[len(node.Content)-1], true
}

func (d *decoder) envNode(o override) *yaml.Node {
	scalar := func(value string) *yaml.Node {
		node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
		d.envOf[node], d.hidden[node] = o.name, o.secret
		return node
	}
	if !o.list {
		return scalar(o.value)
	}
	node := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, value := range strings.Split(o.value, ",") {
		if value = strings.TrimSpace(value); value != "" {
			node.Content = append(node.Content, scalar(value))
		}
	}
	return node
}

func copyNode(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node // may lead back to itself; decoding sees to that
	}
	twin := *node
	twin.Content = make([]*yaml.Node, len(node.Content))
	for i, c := range node.Content {
		twin.Content[i] = copyNode(c)
	}
	return &twin
}
