package truth

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// record writes down what was pushed in a part of the scenario. How much a transaction holds is a matter of time, so what they
// hold is written down one after the other: requests for users and rooms, the keys that each transaction has, events, ephemeral
// events, to-device messages, whose device lists changed, and the counts of keys beside the last event.
func record(out *strings.Builder, title string, got []push) {
	fmt.Fprintf(out, "## %s\n", title)
	var keys map[string]bool
	var events, ephemeral, toDevice []string
	lists, counts := make(map[string]bool), ""
	for _, g := range got {
		if g.transaction() == "" {
			fmt.Fprintf(out, "%s %s\n", g.method, g.path)
			continue
		}
		if g.refused {
			continue
		}
		if keys == nil {
			keys = make(map[string]bool)
			for key := range g.body {
				keys[key] = true
			}
		}
		maps.DeleteFunc(keys, func(key string, _ bool) bool { _, there := g.body[key]; return !there })
		for _, e := range g.list("events") {
			events = append(events, "event "+line(e))
		}
		for _, e := range slices.Concat(g.list("ephemeral"), g.list("de.sorunome.msc2409.ephemeral")) {
			if content, _ := e["content"].(map[string]any); e["type"] == "m.presence" && content["presence"] != "unavailable" {
				continue // of what somebody's requests made the server think; only what was set is of interest
			}
			ephemeral = append(ephemeral, "ephemeral "+line(e))
		}
		for _, e := range g.list("de.sorunome.msc2409.to_device") {
			toDevice = append(toDevice, "to device "+line(e))
		}
		changed, _ := lookUp(g.body, "org.matrix.msc3202.device_lists/changed")
		for _, user := range asList(changed) {
			lists["device list of "+text(user)] = true
		}
		if len(g.list("events")) > 0 {
			counts = countsOf(&g)
		}
	}
	// Device lists and counts are left out when there are none, which is a matter of time too.
	maps.DeleteFunc(keys, func(key string, _ bool) bool { return strings.HasPrefix(key, "org.matrix.msc3202.") })
	fmt.Fprintf(out, "in each transaction: %s\n", strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
	for _, l := range slices.Concat(events, ephemeral, toDevice, slices.Sorted(maps.Keys(lists))) {
		out.WriteString(l + "\n")
	}
	out.WriteString(counts + "\n")
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

func countsOf(g *push) string {
	var out []string
	for _, key := range []string{
		"org.matrix.msc3202.device_one_time_key_counts", "org.matrix.msc3202.device_one_time_keys_count", "org.matrix.msc3202.device_unused_fallback_key_types",
	} {
		if value, there := g.body[key]; there {
			out = append(out, strings.TrimPrefix(key, "org.matrix.msc3202.device_")+" "+line(value))
		}
	}
	return strings.Join(out, "\n")
}

// line is a value without what no two runs have in common.
func line(v any) string {
	r := &runner{vars: map[string]string{"run": "\x00"}} // there is no run in it
	data, _ := json.Marshal(sorted(r.normalValue("", v)))
	return unescaped.Replace(string(data))
}

var unescaped = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

// sorted puts lists of users that have no order into one.
func sorted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			if list := asList(e); key == "user_ids" {
				slices.SortFunc(list, func(a, b any) int { return strings.Compare(text(a), text(b)) })
			}
			sorted(e)
		}
	case []any:
		for _, e := range v {
			sorted(e)
		}
	}
	return v
}
