package bridge

import (
	"cmp"
	"net/netip"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/proxy"
)

// Config is the configuration of a bridge: what the file `config.yaml` says, with defaults filled in, the environment
// applied and every path made relative to the working directory rather than to the file. [LoadConfig] makes one from a
// file; [DefaultConfig] gives the defaults to whoever starts a bridge from a program.
//
// The `network:` section is not here: it is decoded into what [Configurable] hands out.
//
// In the file, durations are written as Go has them, with days besides ("36h", "30d"), and sizes with a unit ("512KiB",
// "100MiB").
type Config struct {
	Homeserver HomeserverConfig `yaml:"homeserver"`
	Appservice AppserviceConfig `yaml:"appservice"`
	// Database is where everything is kept: "sqlite:trestle.db" or "postgres://user:password@host/name".
	Database   string           `yaml:"database" secret:"true"`
	Media      MediaConfig      `yaml:"media"`
	Metrics    MetricsConfig    `yaml:"metrics"`
	Bridge     BridgeConfig     `yaml:"bridge"`
	Encryption EncryptionConfig `yaml:"encryption"`
	Log        LogConfig        `yaml:"log"`
	Retention  RetentionConfig  `yaml:"retention"`

	warnings []Mistake
}

// HomeserverConfig says which homeserver the bridge belongs to.
type HomeserverConfig struct {
	Address string `yaml:"address"` // base URL of the client-server API, as the bridge reaches it
	Domain  string `yaml:"domain"`  // the server name: the part of user IDs after the colon
}

// AppserviceConfig is how the homeserver and the bridge meet.
type AppserviceConfig struct {
	Registration   string        `yaml:"registration"`      // path of the registration file
	Listen         string        `yaml:"listen"`            // host:port on which transactions come in
	Address        string        `yaml:"address"`           // URL under which the homeserver reaches Listen
	ID             string        `yaml:"id"`                // the registration's ID
	Bot            string        `yaml:"bot"`               // localpart of the bot
	Ghosts         string        `yaml:"ghosts"`            // what the localparts of ghosts begin with
	BotDisplayName string        `yaml:"bot_display_name"`  // empty: left as it is
	MaxBody        Size          `yaml:"max_body"`          // the largest transaction that is taken in
	BacklogLimit   int           `yaml:"backlog_limit"`     // events that may wait before transactions are refused
	Workers        int           `yaml:"workers"`           // rooms that are worked on at the same time
	Hold           time.Duration `yaml:"hold"`              // how long a transaction is held back before it is refused
	MaxAge         time.Duration `yaml:"max_age"`           // how long an event is tried before it becomes a dead letter
	AllowQuery     bool          `yaml:"allow_query_token"` // take the homeserver's token from ?access_token= too
	LegacyPaths    bool          `yaml:"legacy_paths"`      // answer on the paths without /_matrix/app/v1 too
	GhostDevices   string        `yaml:"ghost_devices"`     // "always" or "encrypted": which ghosts get a device
	DeviceMode     string        `yaml:"device_mode"`       // "auto", "msc4190", "login" or "none": how they get it
}

// MediaConfig is the media proxy's. Without PublicURL there are no links; without Listen the bridge does not answer them itself.
type MediaConfig struct {
	Listen    string        `yaml:"listen"`     // host:port, not the appservice's
	PublicURL string        `yaml:"public_url"` // what links begin with
	Lifetime  time.Duration `yaml:"lifetime"`   // of a link; 0: for ever
	MaxSize   Size          `yaml:"max_size"`   // the largest file that is served
	Cache     string        `yaml:"cache"`      // folder of the cache; empty: there is none
	CacheSize Size          `yaml:"cache_size"` // of disk
	CacheAge  time.Duration `yaml:"cache_age"`  // since a file was fetched
	// TrustedProxies are the networks of reverse proxies, whose X-Forwarded-For says who the reader is.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	Limits         MediaLimits    `yaml:"limits"`
}

// MediaLimits is what may be had of the media proxy: answers at once, and requests and bytes in a minute. 0 requests or bytes: no limit.
type MediaLimits struct {
	Streams          int  `yaml:"streams"`            // answers at once, in all
	StreamsPerReader int  `yaml:"streams_per_reader"` // of one address; of a /64 with IPv6
	StreamsPerRoom   int  `yaml:"streams_per_room"`   // for files of one room
	ReaderRequests   int  `yaml:"reader_requests"`    // of one address
	ReaderBytes      Size `yaml:"reader_bytes"`
	RoomRequests     int  `yaml:"room_requests"` // for one room's files
	RoomBytes        Size `yaml:"room_bytes"`
	FileRequests     int  `yaml:"file_requests"` // for one file
	FileBytes        Size `yaml:"file_bytes"`
	AllRequests      int  `yaml:"all_requests"` // together
	AllBytes         Size `yaml:"all_bytes"`
}

// rates is what the limits are to package proxy, where 0 is a default and a negative number no limit.
func (l *MediaLimits) rates() proxy.Rates {
	rate := func(requests int, bytes Size) proxy.Rate {
		return proxy.Rate{Requests: cmp.Or(requests, -1), Bytes: cmp.Or(int64(bytes), -1)}
	}
	return proxy.Rates{
		Reader: rate(l.ReaderRequests, l.ReaderBytes), Room: rate(l.RoomRequests, l.RoomBytes),
		Media: rate(l.FileRequests, l.FileBytes), All: rate(l.AllRequests, l.AllBytes),
	}
}

// MetricsConfig is the listener for health and metrics: /healthz, /readyz and /metrics. Without Listen there is none.
type MetricsConfig struct {
	Listen string `yaml:"listen"` // host:port
}

// BridgeConfig says what is bridged, and who may change that.
type BridgeConfig struct {
	Command      string           `yaml:"command"` // the word that starts a command in a room
	Plumb        []Plumb          `yaml:"plumb"`   // portals that always are
	Rooms        RoomsConfig      `yaml:"rooms"`
	Admins       []id.UserID      `yaml:"admins"`        // may give every command in every room
	CommandPower int              `yaml:"command_power"` // power level that others need in a room to plumb it
	Undelivered  string           `yaml:"undelivered"`   // how a sender is told: "both", "notice" or "event"
	Membership   MembershipConfig `yaml:"membership"`
}

// Plumb connects a room to a channel.
type Plumb struct {
	Room    string `yaml:"room"`    // "!id:domain" or "#alias:domain"; empty: one that the bridge makes
	Channel string `yaml:"channel"` // as the network writes it
	// Encryption is the room's own [EncryptionConfig] mode. Empty: that of all rooms.
	Encryption string `yaml:"encryption"`
}

// RoomsConfig says when the bridge makes rooms, besides those that the configuration and commands ask for. Their addresses are
// those of [Bridge.QueryAlias].
type RoomsConfig struct {
	OnAlias bool `yaml:"on_alias"` // whoever asks for the address of a channel's room has it made, and connected
}

// MembershipConfig says which joins and leaves cross.
type MembershipConfig struct {
	ToMatrix  bool `yaml:"to_matrix"`  // people of the network join and leave the room as ghosts
	ToNetwork bool `yaml:"to_network"` // Matrix users' joining and leaving is told on the network
}

// LogConfig says what is logged, where and how.
type LogConfig struct {
	Level  string `yaml:"level"`  // "trace", "debug", "info", "warn" or "error"
	Format string `yaml:"format"` // "pretty" or "json"
	File   string `yaml:"file"`   // empty: standard error
}

// RetentionConfig says how long things are remembered.
type RetentionConfig struct {
	DeadLetters time.Duration `yaml:"dead_letters"` // undeliverable events
	Messages    time.Duration `yaml:"messages"`     // which message is which on the other side
	Remote      time.Duration `yaml:"remote"`       // remote IDs that were seen
	Media       time.Duration `yaml:"media"`        // records of links that have expired
}

// Size is a number of bytes.
type Size int64

// DefaultConfig returns what an empty configuration file means for a network. Homeserver is the only section without
// which nothing starts.
func DefaultConfig(info Info) *Config {
	const day = 24 * time.Hour
	return &Config{
		Appservice: AppserviceConfig{
			Registration:   "registration.yaml",
			Listen:         "127.0.0.1:29400",
			Address:        "http://127.0.0.1:29400",
			ID:             info.ID,
			Bot:            info.ID + "bot",
			Ghosts:         info.ID + "_",
			BotDisplayName: info.Name + " bridge",
			MaxBody:        64 << 20,
			BacklogLimit:   500_000,
			Workers:        32,
			Hold:           20 * time.Second,
			MaxAge:         day,
			GhostDevices:   "always",
			DeviceMode:     "auto",
		},
		Database: "sqlite:trestle.db",
		Media: MediaConfig{
			Lifetime: 30 * day, MaxSize: 100 << 20, CacheSize: 1 << 30, CacheAge: 7 * day,
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
			Limits: MediaLimits{
				Streams: 64, StreamsPerReader: 8, StreamsPerRoom: 32, ReaderRequests: 600, ReaderBytes: 4 << 30, RoomRequests: 6000, RoomBytes: 20 << 30,
				FileRequests: 6000, FileBytes: 20 << 30, AllRequests: 12_000, AllBytes: 60 << 30,
			},
		},
		Bridge: BridgeConfig{
			Command:      info.Command,
			CommandPower: 50,
			Undelivered:  undeliveredBoth,
			Membership:   MembershipConfig{ToMatrix: true, ToNetwork: true},
		},
		Encryption: defaultEncryption(),
		Log:        LogConfig{Level: "info", Format: "pretty"},
		Retention:  RetentionConfig{DeadLetters: 90 * day, Messages: 365 * day, Remote: 30 * day, Media: 30 * day},
	}
}
