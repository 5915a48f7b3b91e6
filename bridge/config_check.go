package bridge

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	year         = 365 * 24 * time.Hour
	maxPower     = 1<<31 - 1 // far above any level that a room has; Matrix knows more (2⁵³-1), an int of 32 bits does not
	maxLocalpart = 255
)

// check reports every value that cannot work, and values that contradict each other.
func (d *decoder) check(cfg *Config, n Network) {
	d.placeholders()
	d.checkHomeserver(&cfg.Homeserver)
	d.checkAppservice(cfg)
	d.checkDatabase(cfg.Database)
	d.checkMedia(&cfg.Media)
	d.checkListeners(cfg)
	d.checkBridge(cfg, n)
	d.checkEncryption(cfg)
	oneOf(d, "log.level", cfg.Log.Level, "trace", "debug", "info", "warn", "error")
	oneOf(d, "log.format", cfg.Log.Format, "pretty", "json")
	within(d, "retention.dead_letters", cfg.Retention.DeadLetters, time.Hour, 100*year)
	within(d, "retention.messages", cfg.Retention.Messages, time.Hour, 100*year)
	within(d, "retention.remote", cfg.Retention.Remote, time.Hour, 100*year)
	within(d, "retention.media", cfg.Retention.Media, time.Hour, 100*year)
}

// RFC 2606 reserves these names for examples, so no bridge can be meant.
var placeholder = regexp.MustCompile(`(?i)(^|[^a-z0-9-])example\.(org|com|net)($|[^a-z0-9.-])`)

// placeholders reports what was left as the example has it.
func (d *decoder) placeholders() {
	for path, o := range d.at {
		if o.value != "" && !d.isBad(path) && placeholder.MatchString(o.value) {
			d.wrong(path, d.quote(path)+" was left as the example has it", "write your own")
		}
	}
}

func (d *decoder) checkHomeserver(c *HomeserverConfig) {
	if d.required("homeserver.address", c.Address, "write the URL at which the bridge reaches the homeserver, such as http://localhost:8008") {
		d.checkURL("homeserver.address", c.Address, "http://localhost:8008")
	}
	if !d.required("homeserver.domain", c.Domain, "write what user IDs of the homeserver have after the colon") {
		return
	}
	switch {
	case strings.Contains(c.Domain, "://"), strings.ContainsAny(c.Domain, "/@"):
		d.wrong("homeserver.domain", d.quote("homeserver.domain")+" is not a server name", "write only what user IDs of the homeserver have after the colon")
	case !validServerName(c.Domain):
		d.wrong("homeserver.domain", d.quote("homeserver.domain")+" is not a server name", "write a host name, with a port only if user IDs have one")
	}
}

var serverName = regexp.MustCompile(`^([A-Za-z0-9.-]{1,230}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$`)

// validServerName follows the grammar of the Matrix appendices, "Server Name".
func validServerName(name string) bool { return serverName.MatchString(name) }

// required reports a value that is not there, and is false for what needs no further look.
func (d *decoder) required(path, value, mend string) bool {
	if value == "" && !d.isBad(path) {
		switch _, written := d.at[path]; {
		case written:
			d.wrong(path, "is empty", mend)
		case d.typo[path]:
			return false // said already, where it is misspelt
		default:
			d.wrong(path, "is missing", mend)
		}
	}
	return !d.isBad(path)
}

// checkURL never quotes what url.Parse says, which may hold a password.
func (d *decoder) checkURL(path, value, example string) *url.URL {
	if d.isBad(path) {
		return nil
	}
	u, err := url.Parse(value)
	mend := "write a URL such as " + example
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		d.wrong(path, d.quote(path)+" is not an http or https URL", mend)
	case !validPort(u.Port(), true):
		d.wrong(path, d.quote(path)+" has a port that does not exist", "write a port from 1 to 65535")
	case u.User != nil:
		d.wrong(path, "has a user name or password in it", mend)
	case u.RawQuery != "", u.Fragment != "", u.ForceQuery:
		d.wrong(path, d.quote(path)+" has a query or fragment", "write it without what begins with ? or #")
	case strings.Contains(u.Path, "/_matrix"):
		d.wrong(path, d.quote(path)+" has a path of the API in it", "write only what stands before /_matrix")
	default:
		return u
	}
	return nil
}

func validPort(port string, mayLack bool) bool {
	if port == "" {
		return mayLack
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 1 && n <= 65535
}

var (
	localpartGrammar = regexp.MustCompile(`^[a-z0-9._=/+-]+$`)
	appserviceID     = regexp.MustCompile(`^[!-.0-~]+$`)
)

func (d *decoder) checkAppservice(cfg *Config) {
	c := &cfg.Appservice
	d.required("appservice.registration", c.Registration, "write the path of the registration file")
	if d.required("appservice.listen", c.Listen, "write host and port, such as 127.0.0.1:29400") {
		d.checkListen("appservice.listen", c.Listen)
		if c.Address == "" && !d.isBad("appservice.listen") {
			d.required("appservice.address", "", "write the URL at which the homeserver reaches "+c.Listen+", such as http://bridge:29400")
		}
	}
	if _, written := d.at["appservice.address"]; written && c.Address != "" && d.checkURL("appservice.address", c.Address, "http://127.0.0.1:29400") != nil && c.Address == cfg.Homeserver.Address {
		d.wrong("appservice.address", "is the homeserver's own address", "write the URL at which the homeserver reaches the bridge")
	}
	if d.required("appservice.id", c.ID, "write a name without spaces") && !appserviceID.MatchString(c.ID) {
		d.wrong("appservice.id", d.quote("appservice.id")+" cannot be an ID", "write letters and digits, without spaces and slashes")
	}
	d.checkLocalpart("appservice.bot", c.Bot)
	d.checkLocalpart("appservice.ghosts", c.Ghosts)
	if !d.isBad("appservice.bot") && !d.isBad("appservice.ghosts") && strings.HasPrefix(c.Bot, c.Ghosts) {
		d.wrong(d.later("appservice.bot", "appservice.ghosts"), fmt.Sprintf("the bot %q would be a ghost, because ghosts begin with %q", c.Bot, c.Ghosts), "write a name or a prefix that keeps them apart")
	}
	if !d.isBad("appservice.bot_display_name") && (len(c.BotDisplayName) > 255 || strings.ContainsFunc(c.BotDisplayName, unicode.IsControl)) {
		d.wrong("appservice.bot_display_name", "is longer than 255 bytes, or has line breaks or control characters in it", "write a short name")
	}
	// A limit below what a homeserver can send would stall it for ever, a hold above 25 s outlasts the most impatient one.
	within(d, "appservice.max_body", c.MaxBody, 16<<20, 1<<30)
	within(d, "appservice.backlog_limit", c.BacklogLimit, 1_000, 100_000_000)
	within(d, "appservice.workers", c.Workers, 1, 1_024)
	within(d, "appservice.hold", c.Hold, time.Second, 25*time.Second)
	within(d, "appservice.max_age", c.MaxAge, time.Minute, year)
	oneOf(d, "appservice.ghost_devices", c.GhostDevices, "always", "encrypted")
	oneOf(d, "appservice.device_mode", c.DeviceMode, "auto", "msc4190", "login", "none")
}

func (d *decoder) checkLocalpart(path, value string) {
	if !d.required(path, value, "write the first part of a user ID, of a-z, 0-9 and ._=/+-") {
		return
	}
	switch {
	case strings.HasPrefix(value, "@"), strings.Contains(value, ":"):
		d.wrong(path, d.quote(path)+" is more than a localpart", "write only what stands between @ and the colon")
	case !localpartGrammar.MatchString(value):
		d.wrong(path, d.quote(path)+" has characters that user IDs cannot have", "write a-z, 0-9 and ._=/+- only")
	case len(value) > maxLocalpart/2:
		d.wrong(path, "is too long for a user ID", fmt.Sprintf("write at most %d characters", maxLocalpart/2))
	}
}

func (d *decoder) checkListen(path, value string) {
	if value == "" || d.isBad(path) {
		return
	}
	host, port, err := net.SplitHostPort(value)
	switch {
	case err != nil || strings.ContainsAny(host, "/@ "):
		d.wrong(path, d.quote(path)+" is not an address to listen on", "write host and port, such as 127.0.0.1:29400")
	case !validPort(port, false):
		d.wrong(path, d.quote(path)+" has no port that can be listened on", "write a port from 1 to 65535")
	}
}

// addressOf guesses at which URL a listener is reached, and gives nothing where it listens on every address.
func addressOf(listen string) string {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || isWildcard(host) {
		return ""
	}
	return "http://" + listen
}

func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func (d *decoder) checkDatabase(uri string) {
	const mend = "write sqlite: and a path, or postgres://USER:PASSWORD@HOST/NAME"
	if !d.required("database", uri, mend) {
		return
	}
	kind, rest, _ := strings.Cut(uri, ":")
	switch kind {
	case "sqlite":
		if path := strings.TrimPrefix(rest, "//"); path == "" || path == "." || strings.HasSuffix(path, "/") {
			d.wrong("database", "names no file", "write sqlite:trestle.db")
		} else if strings.Contains(path, ":memory:") || strings.Contains(path, "mode=memory") {
			d.wrong("database", "would lose everything at the end, because it is in memory", "write sqlite:trestle.db")
		}
	case "postgres", "postgresql":
		if u, err := url.Parse(uri); err != nil || !strings.HasPrefix(rest, "//") {
			d.wrong("database", "is not a URL", "write postgres://USER:PASSWORD@HOST/NAME, with %40 for an @ in the password")
		} else if u.Path == "" || u.Path == "/" {
			d.wrong("database", "names no database", mend)
		}
	default:
		d.wrong("database", "begins neither with sqlite: nor with postgres://", mend)
	}
}

func (d *decoder) checkMedia(c *MediaConfig) {
	d.checkListen("media.listen", c.Listen)
	switch {
	case c.Listen != "" && c.PublicURL == "":
		d.required("media.public_url", "", "write the URL under which everybody reaches "+c.Listen+", such as https://media.your.domain")
	case c.PublicURL != "":
		u := d.checkURL("media.public_url", c.PublicURL, "https://media.your.domain")
		if u != nil && c.Listen == "" && !d.isBad("media.listen") {
			d.warn("media.public_url", "has the bridge make links that it does not answer itself, because media.listen is empty",
				"write media.listen: 127.0.0.1:29401, unless the subcommand proxy answers them in a process of its own")
		}
		if u != nil && c.Listen != "" && u.Scheme == "http" && !isLoopback(u.Hostname()) {
			d.warn("media.public_url", "is http, so that whoever is on the way sees the media and can copy the links", "put a reverse proxy with TLS in front of it and write https://"+u.Host)
		}
	}
	if c.Lifetime != 0 {
		within(d, "media.lifetime", c.Lifetime, time.Minute, 100*year)
	}
	within(d, "media.max_size", c.MaxSize, 1<<10, 1<<40)
	within(d, "media.cache_size", c.CacheSize, 1<<20, 1<<50)
	within(d, "media.cache_age", c.CacheAge, time.Minute, 10*year)
	for _, limit := range []struct {
		name  string
		value int
	}{{"streams", c.Limits.Streams}, {"streams_per_reader", c.Limits.StreamsPerReader}, {"streams_per_room", c.Limits.StreamsPerRoom}} {
		within(d, "media.limits."+limit.name, limit.value, 1, 100_000)
	}
	for _, limit := range []struct {
		name     string
		requests int
		bytes    Size
	}{
		{"reader", c.Limits.ReaderRequests, c.Limits.ReaderBytes}, {"room", c.Limits.RoomRequests, c.Limits.RoomBytes},
		{"file", c.Limits.FileRequests, c.Limits.FileBytes}, {"all", c.Limits.AllRequests, c.Limits.AllBytes},
	} {
		within(d, "media.limits."+limit.name+"_requests", limit.requests, 0, 1_000_000_000)
		within(d, "media.limits."+limit.name+"_bytes", limit.bytes, 0, 1<<60)
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkListeners reports two listeners on one address.
func (d *decoder) checkListeners(cfg *Config) {
	paths := []string{"appservice.listen", "media.listen", "metrics.listen"}
	values := []string{cfg.Appservice.Listen, cfg.Media.Listen, cfg.Metrics.Listen}
	d.checkListen("metrics.listen", cfg.Metrics.Listen)
	for i := range paths {
		for j := range i {
			if values[i] == "" || values[j] == "" || d.isBad(paths[i]) || d.isBad(paths[j]) || !sameListener(values[i], values[j]) {
				continue
			}
			at := d.later(paths[j], paths[i])
			other := paths[i]
			if at == other {
				other = paths[j]
			}
			d.wrong(at, d.quote(at)+" is taken by "+other, "write another port")
		}
	}
}

func sameListener(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	return portA == portB && (hostA == hostB || isWildcard(hostA) || isWildcard(hostB) || isLoopback(hostA) && isLoopback(hostB) && (hostA == "localhost" || hostB == "localhost"))
}

// later gives the path that stands further down: the one that was probably written in error. What is not written at all
// cannot be.
func (d *decoder) later(a, b string) string {
	x, inA := d.at[a]
	y, inB := d.at[b]
	if !inB || inA && cmp.Or(cmp.Compare(btoi(x.env != ""), btoi(y.env != "")), cmp.Compare(x.line, y.line)) > 0 {
		return a
	}
	return b
}

func (d *decoder) checkBridge(cfg *Config, n Network) {
	c := &cfg.Bridge
	if d.required("bridge.command", c.Command, "write a word, such as !irc") {
		switch {
		case strings.ContainsFunc(c.Command, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
			d.wrong("bridge.command", d.quote("bridge.command")+" is more than one word", "write one word, such as !irc")
		case strings.HasPrefix(c.Command, "/"):
			d.wrong("bridge.command", d.quote("bridge.command")+" would be taken by Matrix clients as a command of their own", "write one that begins with !")
		}
	}
	for i, admin := range c.Admins {
		path := join("bridge.admins", strconv.Itoa(i))
		if name, server, err := admin.Parse(); !d.isBad(path) && (err != nil || name == "" || !validServerName(server)) {
			d.wrong(path, d.quote(path)+" is not a user ID", "write it as @name:server, in quotes")
		}
	}
	within(d, "bridge.command_power", c.CommandPower, 0, maxPower)
	oneOf(d, "bridge.undelivered", c.Undelivered, undeliveredBoth, undeliveredNotice, undeliveredEvent)
	d.checkPlumbs(cfg, n)
}

func (d *decoder) checkPlumbs(cfg *Config, n Network) {
	rooms, channels := map[string]string{}, map[string]string{}
	for i, p := range cfg.Bridge.Plumb {
		entry := join("bridge.plumb", strconv.Itoa(i))
		if d.isBad(entry) {
			continue
		}
		room, channel := join(entry, "room"), join(entry, "channel")
		if p.Room != "" {
			if !validRoom(p.Room) {
				d.wrong(room, d.quote(room)+" is neither the ID nor the alias of a room", "write \"!id:server\" or \"#alias:server\", in quotes")
			} else if other := rooms[p.Room]; other != "" {
				d.wrong(room, d.quote(room)+" is connected already, by "+other, "remove one of the two: a room has one channel")
			}
			rooms[p.Room] = cmp.Or(rooms[p.Room], entry)
		}
		if !d.required(channel, p.Channel, "write the channel's name, in quotes") {
			continue
		}
		name := p.Channel
		if v, ok := n.(ChannelValidator); ok {
			canonical, err := v.Channel(name)
			if err != nil {
				d.wrong(channel, d.quote(channel)+" is not a channel: "+err.Error(), "write the channel's name as "+n.Info().Name+" has it")
				continue
			}
			name = canonical
		}
		if _, ok := aliasLocalpart(cfg, name); p.Room == "" && !ok {
			d.wrong(channel, d.quote(channel)+" has a colon or is too long, so that the room that the bridge would make can have no address", "write which room to connect, as room: \"!id:server\"")
		}
		if other := channels[name]; other != "" {
			d.wrong(channel, d.quote(channel)+" is connected already, by "+other, "remove one of the two: a channel has one room")
		}
		channels[name] = cmp.Or(channels[name], entry)
	}
}

// validRoom takes the IDs of room version 12, which have no server, as well.
func validRoom(room string) bool {
	if len(room) > 255 || strings.ContainsFunc(room, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return false
	}
	local, server, hasServer := strings.Cut(room, ":")
	if len(local) < 2 || hasServer && !validServerName(server) {
		return false
	}
	return local[0] == '!' || local[0] == '#' && hasServer
}

// checkNetwork reports what the network says about its own section.
func (d *decoder) checkNetwork(c Configurable) {
	for _, p := range c.Validate() {
		path := join("network", p.Path)
		if p.Path == "" {
			path = "network"
		}
		if d.isBad(path) {
			continue
		}
		m := d.mistake(path, p.Text, p.Mend)
		d.mistakes = append(d.mistakes, m)
	}
}

func oneOf(d *decoder, path, value string, choices ...string) {
	if slices.Contains(choices, value) {
		return
	}
	d.wrong(path, d.quote(path)+" is not a choice", "write "+strings.Join(choices[:len(choices)-1], ", ")+" or "+choices[len(choices)-1])
}

// within reports a number, duration or size that is out of range.
func within[T int | time.Duration | Size](d *decoder, path string, value, low, high T) {
	if value >= low && value <= high { // the default is, when what is written cannot be read
		return
	}
	d.wrong(path, d.quote(path)+" is out of range", "write a value from "+display(low)+" to "+display(high))
}

func display[T int | time.Duration | Size](value T) string {
	switch v := any(value).(type) {
	case time.Duration:
		return formatDuration(v)
	case Size:
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}
