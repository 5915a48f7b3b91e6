package bridge

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// document is a whole configuration file. Network holds a pointer to the network's own structure, or nothing.
type document struct {
	*Config `yaml:",inline"`
	Network any `yaml:"network"`
}

// origin is where a value was written.
type origin struct {
	line   int
	env    string // variable that it came from, or empty
	value  string // of a scalar, for quoting
	secret bool   // so that it is not quoted
}

// decoder fills structures from YAML nodes. Unlike yaml.Decoder it goes on after a mistake, knows the line of every value,
// suggests the key that was meant, takes durations and sizes, and never quotes a secret.
type decoder struct {
	file     string
	envOf    map[*yaml.Node]string // nodes that come from the environment
	hidden   map[*yaml.Node]bool   // nodes that come from a secret's file
	at       map[string]origin     // by dotted path
	bad      map[string]bool       // paths with a mistake
	typo     map[string]bool       // paths that were meant by a key that does not exist
	mistakes []Mistake
	warnings []Mistake
	known    map[string][]string // key → sections that have it, for suggestions
	active   map[*yaml.Node]bool // aliases that are being decoded, against cycles
}

func newDecoder(file string) *decoder {
	return &decoder{
		file: file, envOf: map[*yaml.Node]string{}, hidden: map[*yaml.Node]bool{}, at: map[string]origin{},
		bad: map[string]bool{}, typo: map[string]bool{}, active: map[*yaml.Node]bool{},
	}
}

// wrong records a mistake at a path, at the line of the nearest enclosing value that was written.
func (d *decoder) wrong(path, text, mend string) {
	d.bad[path] = true
	d.mistakes = append(d.mistakes, d.mistake(path, text, mend))
}

func (d *decoder) warn(path, text, mend string) {
	d.warnings = append(d.warnings, d.mistake(path, text, mend))
}

func (d *decoder) mistake(path, text, mend string) Mistake {
	o := d.origin(path)
	return Mistake{File: d.file, Line: o.line, Env: o.env, Path: path, Text: text, Mend: mend}
}

func (d *decoder) origin(path string) origin {
	for at := path; ; {
		if o, ok := d.at[at]; ok {
			return o
		}
		dot := strings.LastIndexByte(at, '.')
		if dot < 0 {
			return origin{line: 1}
		}
		at = at[:dot]
	}
}

// isBad says whether a path, or what it is part of, has a mistake already.
func (d *decoder) isBad(path string) bool {
	for !d.bad[path] {
		dot := strings.LastIndexByte(path, '.')
		if dot < 0 {
			return false
		}
		path = path[:dot]
	}
	return true
}

// quote gives a value for people to recognise, unless it is a secret.
func (d *decoder) quote(path string) string {
	o, ok := d.at[path]
	if !ok || o.secret {
		return "the value"
	}
	return quoteValue(o.value)
}

var credentials = regexp.MustCompile(`//[^/@]*@`)

func quoteValue(value string) string {
	value = credentials.ReplaceAllString(value, "//***@")
	if runes := []rune(value); len(runes) > 60 {
		value = string(runes[:57]) + "..."
	}
	return strconv.Quote(value)
}

var (
	secretName   = regexp.MustCompile(`(?i)(^|_)(pass|passwd|passwords?|passphrase|secrets?|tokens?|keys?|psk|credentials?)$`)
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	nodeType     = reflect.TypeFor[yaml.Node]()
)

// decode puts a node into v. What is null leaves the default.
func (d *decoder) decode(node *yaml.Node, v reflect.Value, path string, secret bool) {
	if node.Kind == yaml.AliasNode {
		if d.active[node.Alias] {
			d.wrong(path, "the alias stands for something that it is part of", "write the value out")
			return
		}
		d.active[node.Alias] = true
		defer delete(d.active, node.Alias)
		node = node.Alias
	}
	if d.hidden[node] {
		secret = true
	}
	if path != "" {
		d.at[path] = origin{line: node.Line, env: d.envOf[node], value: node.Value, secret: secret}
	}
	if d.isMissing(node, v, path) {
		return
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		if custom(v) {
			break
		}
		v = v.Elem()
	}
	if v.Kind() == reflect.Interface && !v.IsNil() && v.Elem().Kind() == reflect.Pointer {
		v = v.Elem().Elem()
	}
	switch {
	case v.Type() == nodeType:
		v.Set(reflect.ValueOf(*node))
	case v.Type() == durationType, v.Type() == sizeType:
		d.scalar(node, v, path)
	case v.CanAddr() && custom(v.Addr()), custom(v):
		d.custom(node, v, path, secret)
	case v.Kind() == reflect.Struct:
		d.structure(node, v, path, secret)
	case v.Kind() == reflect.Map && v.Type().Key().Kind() == reflect.String:
		d.mapping(node, v, path, secret)
	case v.Kind() == reflect.Slice:
		d.sequence(node, v, path, secret)
	case isScalar(v.Kind()):
		d.scalar(node, v, path)
	default:
		d.custom(node, v, path, secret)
	}
}

// isMissing says whether a node is null, and reports the ways in which people write null without wanting to: a value
// that begins with a character that YAML takes for itself.
func (d *decoder) isMissing(node *yaml.Node, v reflect.Value, path string) bool {
	if node.Kind != yaml.ScalarNode {
		return false
	}
	if strings.HasPrefix(node.Tag, "!") && !strings.HasPrefix(node.Tag, "!!") {
		d.wrong(path, "a value that begins with ! is a tag in YAML", "put the value in quotes")
		return true
	}
	if node.Tag != "!!null" {
		return false
	}
	switch comment := node.LineComment; {
	case node.Anchor != "":
		d.wrong(path, "a value that begins with & is an anchor in YAML", "put the value in quotes")
	case len(comment) > 1 && comment[1] != ' ' && comment[1] != '#' && v.Kind() == reflect.String:
		d.wrong(path, "is empty, because # begins a comment", "put the value in quotes, as in \"#channel\"")
	}
	return true
}

func isScalar(k reflect.Kind) bool {
	switch k {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return false
}

// custom says whether a type decodes itself.
func custom(v reflect.Value) bool {
	if !v.CanInterface() {
		return false
	}
	switch v.Interface().(type) {
	case yaml.Unmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return false
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// custom decodes with the type's own method, whose errors may name lines.
func (d *decoder) custom(node *yaml.Node, v reflect.Value, path string, secret bool) {
	target := v
	if v.CanAddr() {
		target = v.Addr()
	}
	var err error
	func() {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("it cannot be decoded (%T)", p)
			}
		}()
		switch u := target.Interface().(type) {
		case yaml.Unmarshaler:
			err = u.UnmarshalYAML(node)
		case encoding.TextUnmarshaler:
			if node.Kind != yaml.ScalarNode {
				err = fmt.Errorf("must be one value, and is %s", kindName(node))
				break
			}
			err = u.UnmarshalText([]byte(node.Value))
		default:
			err = node.Decode(target.Interface())
		}
	}()
	if err == nil {
		return
	}
	texts := []string{err.Error()}
	if several, ok := err.(*yaml.TypeError); ok {
		texts = several.Errors
	}
	for _, text := range texts {
		m := d.mistake(path, text, "mend the value")
		if found := yamlLine.FindStringSubmatch(text); found != nil {
			m.Line, _ = strconv.Atoi(found[1])
			m.Text = text[len(found[0]):]
		}
		if secret || holdsSecret(node) {
			m.Text = "the value cannot be used"
		}
		d.bad[path] = true
		d.mistakes = append(d.mistakes, m)
	}
}

// holdsSecret says whether a value has a secret within it, by the names of its keys.
func holdsSecret(node *yaml.Node) bool {
	if node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(node.Content); i += 2 {
			if secretName.MatchString(node.Content[i].Value) {
				return true
			}
		}
	}
	for _, child := range node.Content {
		if holdsSecret(child) {
			return true
		}
	}
	return false
}

func kindName(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a section with keys of its own"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

func (d *decoder) structure(node *yaml.Node, v reflect.Value, path string, secret bool) {
	if node.Kind != yaml.MappingNode {
		d.wrong(path, "must be a section with keys, and is "+kindName(node), "write its keys below it, indented by two spaces")
		return
	}
	fields := fieldsOf(v)
	d.keys(node, path, func(key string, value *yaml.Node) bool {
		for _, f := range fields {
			if f.name == key {
				// What is true or false is no secret, whatever its name.
				hide := secret || f.secret || f.value.Kind() != reflect.Bool && secretName.MatchString(key)
				d.decode(value, f.value, join(path, key), hide)
				return true
			}
		}
		return false
	}, func() []string {
		names := make([]string, len(fields))
		for i, f := range fields {
			names[i] = f.name
		}
		return names
	})
}

// keys goes through a mapping, and reports keys that are doubled or unknown.
func (d *decoder) keys(node *yaml.Node, path string, take func(key string, value *yaml.Node) bool, known func() []string) {
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := join(path, key.Value)
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			d.report(key, path, "only plain keys can be used", "write the keys out")
			continue
		}
		if line, doubled := first[key.Value]; doubled {
			d.report(key, at, fmt.Sprintf("is here twice, the first time in line %d", line), "remove one of the two")
			continue
		}
		first[key.Value] = key.Line
		// A value that is missing stands on the line of its key.
		if value.Line == 0 && d.envOf[value] == "" {
			value.Line = key.Line
		}
		// yaml.v3 hangs a comment that follows "key:" on the key.
		if value.Kind == yaml.ScalarNode && value.Tag == "!!null" && value.LineComment == "" {
			value.LineComment = key.LineComment
		}
		if !take(key.Value, value) {
			d.report(key, at, "there is no such setting", d.suggest(key.Value, path, known()))
		} else if o := d.at[at]; value.Kind != yaml.ScalarNode && o.env == "" && value.Kind != yaml.AliasNode {
			o.line = key.Line // of a section, where its name stands
			d.at[at] = o
		}
	}
}

func (d *decoder) report(node *yaml.Node, path, text, mend string) {
	d.bad[path] = true
	d.mistakes = append(d.mistakes, Mistake{File: d.file, Line: node.Line, Env: d.envOf[node], Path: path, Text: text, Mend: mend})
}

func (d *decoder) mapping(node *yaml.Node, v reflect.Value, path string, secret bool) {
	if node.Kind != yaml.MappingNode {
		d.wrong(path, "must be a section with keys, and is "+kindName(node), "write its keys below it, indented by two spaces")
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	d.keys(node, path, func(key string, value *yaml.Node) bool {
		elem := reflect.New(v.Type().Elem()).Elem()
		name := reflect.ValueOf(key).Convert(v.Type().Key())
		if old := v.MapIndex(name); old.IsValid() {
			elem.Set(old)
		}
		d.decode(value, elem, join(path, key), secret || secretName.MatchString(key))
		v.SetMapIndex(name, elem)
		return true
	}, nil)
}

func (d *decoder) sequence(node *yaml.Node, v reflect.Value, path string, secret bool) {
	if node.Kind != yaml.SequenceNode {
		d.wrong(path, "must be a list, and is "+kindName(node), "write each entry on a line of its own, after \"- \"")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, entry := range node.Content {
		at := join(path, strconv.Itoa(i))
		d.decode(entry, list.Index(i), at, secret)
		if entry.Kind == yaml.ScalarNode && entry.Tag == "!!null" && !d.isBad(at) {
			d.wrong(at, "is empty", "write an entry, in quotes if it begins with #, or remove the line")
		}
	}
	v.Set(list)
}

func (d *decoder) scalar(node *yaml.Node, v reflect.Value, path string) {
	if node.Kind != yaml.ScalarNode {
		d.wrong(path, "must be one value, and is "+kindName(node), "write the value after the colon, on the same line")
		return
	}
	if text, mend := setScalar(v, node.Value); text != "" {
		d.wrong(path, d.quote(path)+" "+text, mend)
	}
}

// setScalar reads text into v, and otherwise says what is wrong with the text.
func setScalar(v reflect.Value, value string) (text, mend string) {
	switch {
	case v.Type() == durationType:
		duration, err := parseDuration(value)
		if err != nil {
			return "is not a duration", "write a number and a unit, such as 30s, 12h or 30d"
		}
		v.SetInt(int64(duration))
		return "", ""
	case v.Type() == sizeType:
		size, err := parseSize(value)
		if err != nil {
			return "is not a size", "write a number and a unit, such as 512KiB or 100MiB"
		}
		v.SetInt(int64(size))
		return "", ""
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(value)
	case reflect.Bool:
		switch strings.ToLower(value) {
		case "true", "yes", "on":
			v.SetBool(true)
		case "false", "no", "off":
			v.SetBool(false)
		default:
			return "is neither true nor false", "write true or false"
		}
	case reflect.Float32, reflect.Float64:
		number, err := strconv.ParseFloat(value, v.Type().Bits())
		if err != nil {
			return "is not a number", "write a number, such as 0.5"
		}
		v.SetFloat(number)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		number, err := strconv.ParseUint(strings.ReplaceAll(value, "_", ""), 10, v.Type().Bits())
		if err != nil {
			return "is not a whole number in range", fmt.Sprintf("write a whole number from 0 to %d", ^uint64(0)>>(64-v.Type().Bits()))
		}
		v.SetUint(number)
	default:
		number, err := strconv.ParseInt(strings.ReplaceAll(value, "_", ""), 10, v.Type().Bits())
		if err != nil {
			return "is not a whole number", "write a whole number, such as 50"
		}
		v.SetInt(number)
	}
	return "", ""
}

// field is a setting of a structure.
type field struct {
	name   string
	value  reflect.Value
	secret bool
}

// fieldsOf lists a structure's settings in order, inlined ones included, named as yaml.v3 names them.
func fieldsOf(v reflect.Value) []field {
	var list []field
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || tag == "-" {
			continue
		}
		value := v.Field(i)
		if strings.Contains(options, "inline") {
			for value.Kind() == reflect.Pointer {
				if value.IsNil() {
					value.Set(reflect.New(value.Type().Elem()))
				}
				value = value.Elem()
			}
			if value.Kind() == reflect.Struct {
				list = append(list, fieldsOf(value)...)
			}
			continue
		}
		if tag == "" {
			tag = strings.ToLower(f.Name)
		}
		list = append(list, field{tag, value, f.Tag.Get("secret") == "true"})
	}
	return list
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
