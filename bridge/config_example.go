package bridge

import (
	"bytes"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// ConfigExampler is a Network that documents its section of the configuration. Without it, the example has the section
// as [Configurable.Config] returns it, with no comments.
type ConfigExampler interface {
	// ExampleConfig returns the commented contents of `network:`, indented by two spaces. Like the rest of the example,
	// settings that may be left out stand behind a # without a space, with their defaults.
	ExampleConfig() string
}

// ExampleConfig returns a commented configuration file for a network. What must be filled in is there with names under
// example.org; every other setting stands behind a # with its default.
func ExampleConfig(n Network) []byte {
	info, cfg := n.Info(), DefaultConfig(n.Info())
	text := strings.NewReplacer(
		"{NAME}", info.Name, "{ID}", cfg.Appservice.ID, "{BOT}", cfg.Appservice.Bot, "{GHOSTS}", cfg.Appservice.Ghosts,
		"{DISPLAYNAME}", quoteYAML(cfg.Appservice.BotDisplayName), "{COMMAND}", quoteYAML(cfg.Bridge.Command),
	).Replace(exampleText)
	section := networkExample(n)
	if section == "" {
		return []byte(text)
	}
	return []byte(text + "\n# What " + info.Name + " needs.\nnetwork:\n" + strings.TrimRight(strings.TrimPrefix(section, "\n"), "\n") + "\n")
}

func networkExample(n Network) string {
	if e, ok := n.(ConfigExampler); ok {
		return e.ExampleConfig()
	}
	c, ok := n.(Configurable)
	if !ok {
		return ""
	}
	settings := c.Config()
	if v := reach(reflect.ValueOf(settings)); v.Kind() == reflect.Struct && v.NumField() == 0 {
		return ""
	}
	var plain bytes.Buffer
	encoder := yaml.NewEncoder(&plain)
	encoder.SetIndent(2)
	if err := encoder.Encode(settings); err != nil {
		return ""
	}
	var indented strings.Builder
	for line := range strings.Lines(plain.String()) {
		indented.WriteString("  " + line)
	}
	return indented.String()
}

// quoteYAML writes a scalar that stays what it is, whatever characters it has.
func quoteYAML(text string) string {
	quoted, err := yaml.Marshal(&yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: text})
	if err != nil {
		return `""`
	}
	return strings.TrimSpace(string(quoted))
}

const exampleText = `# Configuration of the {NAME} bridge.
#
# Fill in what has example.org in it. Everything that stands behind a # without a space is the default and may be left as
# it is. "check" finds every mistake in this file, "registration" makes the file that the homeserver needs.
#
# Durations have a unit: 20s, 5m, 12h, 30d. Sizes too: 512KiB, 100MiB, 1GiB. Paths are relative to this file. YAML takes
# values that begin with # ! & * @ or % for something else: put them in quotes.
#
# The environment overrides this file. The variable of a setting is TRESTLE_ and its path in capitals, with _ between:
# TRESTLE_HOMESERVER_ADDRESS, TRESTLE_BRIDGE_PLUMB_0_CHANNEL. Commas separate the entries of a list of single values:
# TRESTLE_BRIDGE_ADMINS. With _FILE at its end the variable names a file that has the value in it, for secrets:
# TRESTLE_DATABASE_FILE=/run/secrets/database. A variable that begins with TRESTLE_ and means no setting is a mistake.

# The homeserver that the bridge belongs to.
homeserver:
  # Where the bridge reaches its client-server API.
  address: https://matrix.example.org
  # Its server name: what user IDs have after the colon.
  domain: example.org

# How the homeserver and the bridge meet. A change of address, id, bot, ghosts or the domain needs the registration
# anew: "registration -replace" writes it, with the tokens that it has; then restart the homeserver with it.
appservice:
  # The registration file, which holds the secrets that the two share.
  #registration: registration.yaml
  # Where the bridge listens for the homeserver: host:port. Nobody else needs to reach it.
  #listen: 127.0.0.1:29400
  # The URL at which the homeserver reaches that listener. Default: http:// and what listen says.
  #address: http://127.0.0.1:29400
  # Name of the bridge on the homeserver, unlike that of any other bridge there.
  #id: {ID}
  # The bridge's bot: what stands between @ and the colon.
  #bot: {BOT}
  # Its display name. Empty: it is left alone.
  #bot_display_name: {DISPLAYNAME}
  # What the user IDs of people on {NAME} begin with.
  #ghosts: {GHOSTS}
  # Whether those get a device: always, or encrypted (only with encryption, below). With a device the homeserver
  # remembers what was sent, so that nothing is sent twice after a crash.
  #ghost_devices: always
  # How they get it: auto (found out by trying), msc4190 or login (it is a mistake when the homeserver cannot), or none.
  #device_mode: auto
  # The largest transaction that is taken in. A homeserver that sends a larger one stalls, so it is at least 16MiB.
  #max_body: 64MiB
  # How many events may wait in the database before the homeserver is asked to wait.
  #backlog_limit: 500000
  # How many rooms are worked on at the same time.
  #workers: 32
  # How long a transaction that cannot be stored yet is held before it is refused; at most 25s.
  #hold: 20s
  # How long a message that cannot be delivered is tried before its sender is told and it becomes a dead letter.
  #max_age: 1d
  # Take the homeserver's token from ?access_token= too. Only for homeservers from before Matrix 1.4.
  #allow_query_token: false
  # Answer on the paths from before Matrix r0.1 too.
  #legacy_paths: false

# Where everything is kept: sqlite: and a path, or postgres://USER:PASSWORD@HOST/NAME.
#database: sqlite:trestle.db

# Links to media, for people on {NAME}. They open in any browser, expire, and die with the message.
media:
  # Where the bridge listens for whoever opens a link, such as 127.0.0.1:29401. Not the appservice's address. Empty: it
  # does not; with a public_url the subcommand proxy can, in a process of its own.
  #listen: ""
  # The URL at which the whole world reaches that listener, such as https://media.your.domain. Short ones make short links.
  # Empty: there are no links.
  #public_url: ""
  # How long a link lives. 0: for ever.
  #lifetime: 30d
  # The largest file that is handed out.
  #max_size: 100MiB
  # A folder in which files that were handed out are kept, so that the homeserver is asked once. It is this process's own,
  # and holds what people sent: encrypted files as they came, others readable. Empty: nothing is kept.
  #cache: ""
  # How large it may grow. Files over half of it are not kept.
  #cache_size: 1GiB
  # After how long a file is fetched again.
  #cache_age: 7d
  # Reverse proxies whose X-Forwarded-For is believed, so that the limits are each reader's own and not the proxy's. One
  # that passes on what the reader wrote there, instead of adding the reader's address, must not be in this list.
  #trusted_proxies: [127.0.0.0/8, "::1/128"]
  # What readers may have. Who is over a limit is told when to come back.
  limits:
    # Answers at once: in all, of one reader (an address; with IPv6 a /64), and of one room's files and pages.
    #streams: 64
    #streams_per_reader: 8
    #streams_per_room: 32
    # Requests and bytes in a minute: of one reader, of one room's files and pages, of one file or page, and in all. 0: no limit.
    #reader_requests: 600
    #reader_bytes: 4GiB
    #room_requests: 6000
    #room_bytes: 20GiB
    #file_requests: 6000
    #file_bytes: 20GiB
    #all_requests: 12000
    #all_bytes: 60GiB

# Figures for Prometheus on /metrics, and whether all is well on /healthz and /readyz. For nobody but whoever watches over
# the bridge.
metrics:
  # Where, such as 127.0.0.1:29402. Empty: nowhere.
  #listen: ""

# What is bridged, and who may change that.
bridge:
  # The word that commands in a room begin with.
  #command: {COMMAND}
  # Rooms that are always connected to a channel. The bot joins them, so invite it to rooms that are not public. Without a room
  # the bridge makes one that anybody may join, with the address #{GHOSTS}CHANNEL:your.domain. One entry:
  #   - room: "!id:your.domain" (or its alias, "#name:your.domain")
  #     channel: "the channel's name"
  #     encryption: ghosts (as encryption.mode, for this room alone; left out: as all)
  #plumb: []
  rooms:
    # Whoever asks for the address #{GHOSTS}CHANNEL:your.domain, on any homeserver, has the channel's room made and connected.
    # Have the consent of those whose channels they are.
    #on_alias: false
  # Users who may give the bot every command in every room: ["@you:your.domain"].
  #admins: []
  # The power level that others need in a room to connect it to a channel and to disconnect it.
  #command_power: 50
  # How the sender of a message that did not reach {NAME}, or perhaps not, is told: by a notice in the room, by a delivery
  # status event, which clients that know it show at the message itself (com.beeper.message_send_status), or by both.
  #undelivered: both
  # Who is shown to come and go.
  membership:
    # People on {NAME} join and leave the room.
    #to_matrix: true
    # Matrix users who join and leave are named in the channel.
    #to_network: true

# Rooms that are encrypted. The homeserver needs switches for it: "check" says which. More: docs/encryption.md
encryption:
  # off: the bot says once that it cannot read such a room, and nothing crosses. bot: the bot's device reads, and encrypts
  # for the people on {NAME}; clients show that beside each message. ghosts: each who speaks has keys of its own.
  #mode: off
  # Whose devices are given the keys of what comes from {NAME}: cross-signed (those that their owners have verified, as
  # clients demand by now), or any.
  #send: cross-signed
  # From whose devices messages are taken. With any, also what was not encrypted at all.
  #receive: cross-signed
  # How long a message whose key has not come holds up those behind it; at most 1m.
  #hold: 10s
  # How long it waits for its key after that, before its sender is told that it cannot be read.
  #patience: 15m
  # Whether each device with keys asks the homeserver with /sync for what is sent to it: auto (where transactions do not
  # bring it, which is found out), always, or never. Synapse refuses it to the bot: there the switches are needed.
  #sync: auto
  # What the keys are encrypted with in the database; at least 16 characters. Empty: with a key that is in the database
  # itself, so that who has the file has the keys. Once there are keys it cannot be changed.
  #pickle_key: ""

log:
  # trace, debug, info, warn or error. Durations in the log (took, wait) are milliseconds.
  #level: info
  # pretty, for people, or json.
  #format: pretty
  # Empty: standard error.
  #file: ""

# How long the bridge remembers.
retention:
  # Messages that could not be delivered, with the reason.
  #dead_letters: 90d
  # Which message is which on the other side, for replies and redactions.
  #messages: 365d
  # What came from {NAME}, so that nothing is bridged twice.
  #remote: 30d
  # What an expired link led to, so that it says "expired" rather than "not found".
  #media: 30d
`
