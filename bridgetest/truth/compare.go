package truth

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Compare runs every case on two homeservers, request by request, each in a subtest. Both are held to the cases as by [Run],
// and to each other: the same status, the same headers of those that mean something to a client, the same JSON. What is
// different in every run is compared by its shape; the wording of errors is not compared, nor what a step says varies.
//
// The model is bridgetest's homeserver, the real one is right. Both are of the same personality and limits.
func Compare(t *testing.T, model, real Target) {
	t.Helper()
	forEach(t, &real, func(ctx context.Context, c *Case) []string { return compare(ctx, c, model, real) })
}

func compare(ctx context.Context, c *Case, model, real Target) []string {
	one, other := newRunner(ctx, model), newRunner(ctx, real)
	for i := range c.Steps {
		s := &c.Steps[i]
		before := len(one.problems)
		x, goOn := one.step(i+1, s)
		for j := before; j < len(one.problems); j++ {
			one.problems[j] = "bridgetest: " + one.problems[j]
		}
		y, alsoGoOn := other.step(i+1, s)
		if x != nil && y != nil {
			if differences := x.differences(y); len(differences) > 0 {
				other.problem("step %d: %s\n  bridgetest answers %s\n  the real one       %s\n  differing: %s", i+1, s.Do, x, y, strings.Join(differences, "; "))
			}
		}
		if !goOn || !alsoGoOn {
			break
		}
	}
	return append(one.problems, other.problems...)
}

// exchange is an answer with what is different in every run replaced by its shape.
type exchange struct {
	status int
	header map[string]string
	body   any // decoded JSON, or text
}

func (x *exchange) String() string {
	data, _ := json.Marshal(x.body)
	return fmt.Sprintf("%d %v %s", x.status, x.header, data)
}

// differences tells in what two answers differ.
func (x *exchange) differences(y *exchange) []string {
	var out []string
	if x.status != y.status {
		out = append(out, "status")
	}
	for _, name := range compared {
		if x.header[name] != y.header[name] {
			out = append(out, fmt.Sprintf("header %s is %q, really %q", name, x.header[name], y.header[name]))
		}
	}
	return append(out, differ("", x.body, y.body)...)
}

// differ compares values by their keys and elements, so that what differs is named.
func differ(path string, a, b any) []string {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			break
		}
		var out []string
		keys := maps.Clone(a)
		maps.Copy(keys, b)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			have, inA := a[key]
			real, inB := b[key]
			switch {
			case !inB:
				out = append(out, path+"/"+key+" is not there really")
			case !inA:
				out = append(out, path+"/"+key+" is missing")
			default:
				out = append(out, differ(path+"/"+key, have, real)...)
			}
		}
		return out
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			break
		}
		var out []string
		for i := range a {
			out = append(out, differ(fmt.Sprintf("%s/%d", path, i), a[i], b[i])...)
		}
		return out
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) == string(y) {
		return nil
	}
	return []string{fmt.Sprintf("%s is %s, really %s", path, x, y)}
}

// compared are the headers that mean something to a client of an appservice.
var compared = []string{
	"Content-Type", "Content-Disposition", "Cache-Control", "ETag", "Retry-After", "Location", "WWW-Authenticate", "Server", "Access-Control-Allow-Origin",
}

// normal takes out of an answer what no two runs have in common.
func (r *runner) normal(s *Step, a *answer) *exchange {
	x := &exchange{status: a.status, header: make(map[string]string)}
	for _, name := range compared {
		if value := a.header.Get(name); value != "" {
			x.header[name] = r.normalHeader(name, value)
		}
	}
	var body any
	if json.Unmarshal(a.body, &body) != nil {
		x.body = string(a.body)
		if slices.Contains(s.Varies, "body") {
			x.body = "<varies>"
		}
		return x
	}
	x.body = r.normalValue("", body)
	if list, ok := x.body.([]any); ok && s.Unordered {
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(text(a), text(b)) })
	}
	for _, field := range s.Varies {
		if object, key, found := parent(x.body, field); found {
			object[key] = "<varies>"
		}
	}
	return x
}

var version = regexp.MustCompile(`^(Synapse)/[0-9.]+.*$`)

func (r *runner) normalHeader(name, value string) string {
	switch name {
	case "Retry-After":
		if shapes["<number>"].MatchString(value) {
			return "<number>"
		}
	case "Server":
		return version.ReplaceAllString(value, "$1/<version>")
	}
	return strings.ToLower(value)
}

// volatile are fields whose values no two runs have in common, and what they have to look like.
var volatile = map[string]string{
	"error": "<any>", "access_token": "<token>", "refresh_token": "<token>", "session": "<any>", "base_url": "<any>",
	"age": "<number>", "ts": "<number>", "last_active_ago": "<number>", "unused_expires_at": "<number>", "duration_ms": "<number>",
	"retry_after_ms": "<number>", "expires_in_ms": "<number>", "origin_server_ts": "<number>", "creation_ts": "<number>",
}

// patterns are what values look like that are made anew in each run, wherever they stand.
var patterns = []struct {
	match *regexp.Regexp
	name  string
}{
	{regexp.MustCompile(`![A-Za-z0-9]{18}:[a-z0-9.-]+`), "<room>"},
	{regexp.MustCompile(`![A-Za-z0-9_-]{43}`), "<room12>"},
	{regexp.MustCompile(`\$[A-Za-z0-9_-]{43}`), "<event>"},
	{regexp.MustCompile(`mxc://[a-z0-9.:-]+/[A-Za-z0-9]{24}`), "<mxc>"},
	{regexp.MustCompile(`^[A-Z]{10}$`), "<device>"},
}

func (r *runner) normalValue(key string, v any) any {
	if shape := volatile[key]; shape != "" && v != nil && shapes[shape].MatchString(text(v)) {
		return shape
	}
	switch v := v.(type) {
	case string:
		return r.normalText(v)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = r.normalValue("", e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[r.normalText(k)] = r.normalValue(k, e)
		}
		return out
	}
	return v
}

func (r *runner) normalText(s string) string {
	s = strings.ReplaceAll(s, r.vars["run"], "<run>")
	for _, p := range patterns {
		s = p.match.ReplaceAllString(s, p.name)
	}
	return s
}

// parent finds the object that has the field at the end of a path.
func parent(body any, path string) (object map[string]any, key string, found bool) {
	object, _ = body.(map[string]any)
	for {
		first, rest, more := strings.Cut(path, "/")
		if _, there := object[first]; !there || !more {
			return object, first, there
		}
		object, _ = object[first].(map[string]any)
		path = rest
	}
}
