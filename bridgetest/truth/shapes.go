package truth

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
)

// shapes stand for what is different in every run.
var shapes = map[string]*regexp.Regexp{
	"<event>":  regexp.MustCompile(`^\$[A-Za-z0-9_-]{43}$`),
	"<room>":   regexp.MustCompile(`^![A-Za-z0-9_-]{10,}:[a-z0-9.:-]+$`),
	"<room12>": regexp.MustCompile(`^![A-Za-z0-9_-]{43}$`),
	"<token>":  regexp.MustCompile(`^[A-Za-z0-9_.-]{20,}$`),
	"<device>": regexp.MustCompile(`^[A-Za-z0-9._~-]{1,255}$`),
	"<mxc>":    regexp.MustCompile(`^mxc://[a-z0-9.:-]+/[A-Za-z0-9]+$`),
	"<number>": regexp.MustCompile(`^[0-9]+$`),
	"<any>":    regexp.MustCompile(`(?s)^.*$`),
}

// matches compares a value of an answer with what is expected: a shape, or the same JSON.
func matches(got, want any) bool {
	if name, ok := want.(string); ok {
		if shape := shapes[name]; shape != nil {
			return shape.MatchString(text(got))
		}
	}
	a, errA := json.Marshal(got)
	b, errB := json.Marshal(want)
	return errA == nil && errB == nil && string(a) == string(b)
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	data, _ := json.Marshal(v)
	return string(data)
}

// lookUp finds a field by its path, with slashes between the keys.
func lookUp(body map[string]any, path string) (any, bool) {
	var at any = body
	for part := range strings.SplitSeq(path, "/") {
		object, ok := at.(map[string]any)
		if !ok {
			return nil, false
		}
		if at, ok = object[part]; !ok {
			return nil, false
		}
	}
	return at, true
}
