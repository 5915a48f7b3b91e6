package irc

import (
	"crypto/x509"
	_ "embed"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
)

// ExampleConfig is the commented `network:` section of a configuration file, indented by two spaces, without the line
// `network:` itself.
//
//go:embed example.yaml
var ExampleConfig string

// Config is the `network:` section. ExampleConfig says what each field means.
type Config struct {
	Address    string            `yaml:"address"`
	TLS        TLS               `yaml:"tls"`
	Password   string            `yaml:"password"`
	Nick       string            `yaml:"nick"`
	Username   string            `yaml:"username"`
	Realname   string            `yaml:"realname"`
	Icon       string            `yaml:"icon"`
	SASL       SASL              `yaml:"sasl"`
	Keys       map[string]string `yaml:"keys"`
	Logins     int               `yaml:"logins"`
	Membership string            `yaml:"membership"`
	Delivery   string            `yaml:"delivery"`
	History    int               `yaml:"history"`
	MaxLines   int               `yaml:"max_lines"`
	LongText   string            `yaml:"long_text"`
	PageLines  int               `yaml:"page_lines"`
	NoPing     bool              `yaml:"no_ping"`
	Encoding   string            `yaml:"encoding"`
	Flood      Flood             `yaml:"flood"`
	Reconnect  Reconnect         `yaml:"reconnect"`
	Ping       Ping              `yaml:"ping"`
}

// TLS says whether and how the link is encrypted.
type TLS struct {
	Enabled            bool   `yaml:"enabled"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
	CAFile             string `yaml:"ca_file"`
}

// SASL is how the bot logs in to its account.
type SASL struct {
	Mechanism string `yaml:"mechanism"` // "PLAIN", or empty for no login
	Account   string `yaml:"account"`
	Password  string `yaml:"password"`
}

// Flood is how fast the bot may send.
type Flood struct {
	Burst    int           `yaml:"burst"`    // lines at once
	Interval time.Duration `yaml:"interval"` // for one more line
}

// Reconnect is how long to wait before connecting again, and for the connection.
type Reconnect struct {
	First   time.Duration `yaml:"first"`
	Max     time.Duration `yaml:"max"`
	Timeout time.Duration `yaml:"timeout"` // of connecting, and then of registering
}

// Ping is how a dead link is noticed.
type Ping struct {
	Interval time.Duration `yaml:"interval"` // of silence before asking
	Timeout  time.Duration `yaml:"timeout"`  // for the answer, and for writing a line
}

// Values of Config.Membership, Config.Delivery and Config.LongText.
const (
	MembershipNotice = "notice"
	MembershipOff    = "off"

	DeliveryAtMostOnce  = "at_most_once"
	DeliveryAtLeastOnce = "at_least_once"

	LongTextPage = "page"
	LongTextCut  = "cut"
)

func defaultConfig() *Config {
	return &Config{
		TLS:        TLS{Enabled: true},
		Nick:       "trestle",
		Username:   "trestle",
		Realname:   "Matrix bridge",
		Membership: MembershipNotice,
		Delivery:   DeliveryAtMostOnce,
		History:    1000,
		MaxLines:   5,
		LongText:   LongTextPage,
		PageLines:  2,
		Encoding:   "windows-1252",
		Flood:      Flood{Burst: 5, Interval: 2 * time.Second},
		Reconnect:  Reconnect{First: 2 * time.Second, Max: 5 * time.Minute, Timeout: 15 * time.Second},
		Ping:       Ping{Interval: 90 * time.Second, Timeout: 60 * time.Second},
	}
}

// host is the server's name, for people: without the port.
func (c *Config) host() string {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return c.Address
	}
	return host
}

// problems finds everything that is wrong.
func (c *Config) problems() []bridge.Problem {
	var found []bridge.Problem
	say := func(path, mend, text string, args ...any) {
		found = append(found, bridge.Problem{Path: path, Text: fmt.Sprintf(text, args...), Mend: mend})
	}
	if c.Address == "" {
		say("address", `write the server's host and port, such as "irc.libera.chat:6697"`, "no server is given")
	} else if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" {
		say("address", `write host:port, such as "irc.libera.chat:6697" or "[::1]:6667"`, "%q is no host and port", c.Address)
	}
	if c.TLS.CAFile != "" {
		if _, err := certificates(c.TLS.CAFile); err != nil {
			say("tls.ca_file", "give a readable file with PEM certificates", "%v", err)
		}
		if c.TLS.InsecureSkipVerify {
			say("tls.insecure_skip_verify", "leave one of the two out", "certificates are given to check the server by, and checking is off")
		}
	}
	if !c.TLS.Enabled && (c.TLS.CAFile != "" || c.TLS.InsecureSkipVerify) {
		say("tls.enabled", "set it to true, or leave the other TLS settings out", "TLS is off, but there are settings for it")
	}
	c.identity(say)
	if uri, err := id.ParseContentURI(c.Icon); c.Icon != "" && (err != nil || uri.IsEmpty()) {
		say("icon", `write the mxc:// URI of an uploaded picture, such as "mxc://example.org/abc", or leave it empty`, "%q is no mxc:// URI", c.Icon)
	}
	for name := range c.Keys {
		if _, err := (*Network)(nil).Channel(name); err != nil {
			say("keys", "use channel names as keys, in quotes", "%v", err)
		}
		if key := c.Keys[name]; key == "" || strings.ContainsAny(key, " ,:\r\n\x00") {
			say("keys", "write the channel's key without spaces, commas and colons", "the key of %s is none", name)
		}
	}
	if c.Membership != MembershipNotice && c.Membership != MembershipOff {
		say("membership", `write "notice" or "off"`, "%q is not known", c.Membership)
	}
	if c.Delivery != DeliveryAtMostOnce && c.Delivery != DeliveryAtLeastOnce {
		say("delivery", `write "at_most_once" or "at_least_once"`, "%q is not known", c.Delivery)
	}
	if c.Logins < 0 || c.Logins > 10_000 {
		say("logins", "write a number from 0 to 10000", "%d people are out of range", c.Logins)
	}
	if c.History < 0 || c.History > 100_000 {
		say("history", "write a number from 0 to 100000", "%d messages are out of range", c.History)
	}
	if c.MaxLines < 1 || c.MaxLines > 100 {
		say("max_lines", "write a number from 1 to 100", "%d lines are out of range", c.MaxLines)
	}
	if c.LongText != LongTextPage && c.LongText != LongTextCut {
		say("long_text", `write "page" or "cut"`, "%q is not known", c.LongText)
	}
	if c.PageLines < 0 || c.PageLines > max(c.MaxLines, 0) {
		say("page_lines", "write a number from 0 to max_lines", "%d lines are out of range", c.PageLines)
	}
	if c.Encoding != "" && charset(c.Encoding) == nil {
		say("encoding", "use one of "+strings.Join(charsetNames(), ", ")+", or leave it empty", "%q is not known", c.Encoding)
	}
	if c.Flood.Burst < 1 || c.Flood.Burst > 1000 {
		say("flood.burst", "write a number from 1 to 1000", "%d lines are out of range", c.Flood.Burst)
	}
	for _, d := range []struct {
		path     string
		value    time.Duration
		min, max time.Duration
	}{
		{"flood.interval", c.Flood.Interval, time.Millisecond, time.Minute},
		{"reconnect.first", c.Reconnect.First, time.Millisecond, time.Hour},
		{"reconnect.max", c.Reconnect.Max, c.Reconnect.First, 24 * time.Hour},
		{"reconnect.timeout", c.Reconnect.Timeout, time.Millisecond, 10 * time.Minute},
		{"ping.interval", c.Ping.Interval, time.Millisecond, time.Hour},
		{"ping.timeout", c.Ping.Timeout, time.Millisecond, time.Hour},
	} {
		if d.value < d.min || d.value > d.max {
			say(d.path, fmt.Sprintf(`write a time with its unit, such as "2s", from %v to %v`, d.min, d.max), "%v is out of range", d.value)
		}
	}
	return found
}

func (c *Config) identity(say func(path, mend, text string, args ...any)) {
	if !validNick(c.Nick) {
		say("nick", `use letters, digits and []\\^_{|}-, not beginning with a digit or "-"`, "%q is no nick", c.Nick)
	}
	if c.Username == "" || strings.ContainsFunc(c.Username, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("@!:", r) }) {
		say("username", "use letters and digits", "%q is no user name", c.Username)
	}
	if c.Realname == "" || hasControl(c.Realname) {
		say("realname", `write one line, such as "Matrix bridge, contact admin@example.org"`, "%q is no real name", c.Realname)
	}
	if hasControl(c.Password) {
		say("password", "write it in one line", "the password contains control characters")
	}
	switch c.SASL.Mechanism {
	case "":
		if c.SASL.Account != "" || c.SASL.Password != "" {
			say("sasl.mechanism", `write "PLAIN"`, "there is an account, but no mechanism to log in with")
		}
	case "PLAIN":
		if c.SASL.Account == "" || strings.Contains(c.SASL.Account, "\x00") {
			say("sasl.account", "write the account's name", "SASL needs an account")
		}
		if c.SASL.Password == "" || strings.Contains(c.SASL.Password, "\x00") {
			say("sasl.password", "write the account's password", "SASL PLAIN needs a password")
		}
	default:
		say("sasl.mechanism", `write "PLAIN", or leave it empty for no login`, "%q is not known", c.SASL.Mechanism)
	}
}

func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func certificates(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s contains no certificate", file)
	}
	return pool, nil
}
