package irc

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/trestle-bridge/trestle/bridge"
)

func TestExampleConfig_IsRight_AndSaysTheDefaults(t *testing.T) {
	n := NewNetwork("")
	decoder := yaml.NewDecoder(strings.NewReader(ExampleConfig))
	decoder.KnownFields(true)
	if err := decoder.Decode(n.Config()); err != nil {
		t.Fatal(err)
	}
	if problems := n.Validate(); len(problems) != 0 {
		t.Errorf("%v", problems)
	}
	got, want := *n.config, *defaultConfig()
	want.Address, want.Realname = got.Address, got.Realname
	a, _ := yaml.Marshal(got)
	b, _ := yaml.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("example:\n%s\ndefaults:\n%s", a, b)
	}
}

func TestExampleConfig_CommentedSettingsAreKnown_AndTheDefaults(t *testing.T) {
	var lines []string
	for line := range strings.SplitSeq(ExampleConfig, "\n") {
		line = strings.TrimPrefix(line, "  ")
		if rest, ok := strings.CutPrefix(line, "#"); ok && !(strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "  ")) {
			line = rest
		}
		lines = append(lines, line)
	}
	config := &Config{}
	decoder := yaml.NewDecoder(strings.NewReader(strings.Join(lines, "\n")))
	decoder.KnownFields(true)
	if err := decoder.Decode(config); err != nil {
		t.Fatal(err)
	}
	want := *defaultConfig()
	want.Address, want.Realname = config.Address, config.Realname
	a, _ := yaml.Marshal(*config)
	b, _ := yaml.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("example:\n%s\ndefaults:\n%s", a, b)
	}
}

func TestValidate_EveryMistakeAtOnce(t *testing.T) {
	n := NewNetwork("")
	*n.Config().(*Config) = Config{
		Address: "irc.example.org", TLS: TLS{CAFile: "/does/not/exist"}, Nick: "1x", Username: "a b", Realname: "",
		SASL: SASL{Mechanism: "SCRAM"}, Keys: map[string]string{"nochannel": ""}, Membership: "x", Delivery: "y", MaxLines: 0, LongText: "z", PageLines: 1,
		Encoding: "ebcdic", Flood: Flood{Burst: 0, Interval: 2}, Reconnect: Reconnect{First: time.Hour, Max: time.Minute},
		Password: "a\nb",
	}
	var paths []string
	for _, p := range n.Validate() {
		paths = append(paths, p.Path)
		if p.Text == "" || p.Mend == "" || strings.Contains(p.Text, "a\nb") {
			t.Errorf("%+v", p)
		}
	}
	slices.Sort(paths)
	want := "address delivery encoding flood.burst flood.interval keys keys long_text max_lines membership nick page_lines password ping.interval " +
		"ping.timeout realname reconnect.max reconnect.timeout sasl.mechanism tls.ca_file tls.enabled username"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestChannel_IsOneName_OrAMistake(t *testing.T) {
	var n bridge.ChannelValidator = NewNetwork("")
	if got, err := n.Channel("#Go[Nuts]"); err != nil || got != "#go[nuts]" {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"", "go", "#", "#a b", "#a,b", "#a\r\nQUIT", "#a\x07b", "#" + strings.Repeat("x", 300)} {
		if got, err := n.Channel(name); err == nil {
			t.Errorf("%q became %q", name, got)
		}
	}
}

func TestBackoff_Doubles_UpToTheMaximum_WithJitter(t *testing.T) {
	b := backoff{first: time.Second, max: 10 * time.Second}
	for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		want *= time.Second
		if got := b.next(); got < want/2 || got > want*3/2 {
			t.Errorf("%v, want about %v", got, want)
		}
	}
	b.failures = 1000
	if got := b.next(); got < 5*time.Second || got > 15*time.Second {
		t.Errorf("%v", got)
	}
}

func TestBucket_BurstThenOneEachInterval(t *testing.T) {
	now := time.Unix(0, 0)
	b := bucket{burst: 3, interval: 2 * time.Second, at: now}
	for i, want := range []time.Duration{0, 0, 0, 2, 4} {
		if got := b.wait(now); got != want*time.Second {
			t.Errorf("line %d waits %v, want %vs", i, got, int(want))
		}
		b.take(now)
	}
	if got := b.wait(now.Add(time.Hour)); got != 0 {
		t.Errorf("%v", got)
	}
}
