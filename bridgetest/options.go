package bridgetest

import "time"

// Option is what [NewHomeserver] can be told: a [Personality], a [*Clock], or [Options].
type Option interface{ apply(o *Options) }

func (p Personality) apply(o *Options) { o.Personality = p }
func (c *Clock) apply(o *Options)      { o.Clock = c }

// apply leaves the personality and the clock that stand there already, unless it has others.
func (o Options) apply(into *Options) {
	if o.Personality == Synapse {
		o.Personality = into.Personality
	}
	if o.Clock == nil {
		o.Clock = into.Clock
	}
	*into = o
}

// Options say how a homeserver starts. The zero value is good for tests.
type Options struct {
	// Personality is the homeserver that this one behaves as; Synapse when not set.
	Personality Personality
	// Clock is the homeserver's time; real time when nil.
	Clock *Clock
	// ServerName is the part of user IDs after the colon; "hs.test" when empty.
	ServerName string
	// Listen is the address to listen on; "127.0.0.1:0", a free port of the loopback, when empty.
	Listen string
	// InMemory makes the homeserver listen nowhere: people and what [Homeserver.Client] gives reach it through memory. In a
	// bubble of testing/synctest everything then takes the bubble's time, so that waiting for hours takes none.
	InMemory bool
	// RetryUnit stands for the second in the pauses between retries of a failed transaction, which are 2, 4, 8 … 512
	// units long (Dendrite: 64); one second when zero. NewHomeserver takes 5 ms when neither it nor a Clock is set.
	RetryUnit time.Duration
	// PushTimeout bounds the wait for the headers of an appservice's answer; when zero it is what the real server has (60 s
	// Synapse, 30 s Dendrite, 35 s Continuwuity and Tuwunel).
	PushTimeout time.Duration
	// MaxUpload is the greatest size of uploaded media in bytes; 50 MiB when zero. Synapse answers a larger upload with 413 as
	// long as it has no more than 13,107,200 bytes, which it takes of any request, and else with a reset of the connection.
	// The others reset it.
	MaxUpload int64
	// Limits are the rates at which ghosts of rate-limited appservices may do things; none when zero.
	Limits Limits
	// RestartSequence makes transaction IDs start again after Restart, as Synapse's do on SQLite when nothing is pending.
	RestartSequence bool
	// RestartForgets makes Restart forget the room events that are in no transaction yet because one is under way, as a Synapse does that is killed: it notes how
	// far it has come as soon as events are in its memory, before the transaction with them is in its database.
	RestartForgets bool
	// NoToDevice and NoDeviceExtensions switch off the experimental features msc2409_to_device_messages_enabled and
	// msc3202_transaction_extensions, which a homeserver has off unless its administrator switched them on.
	NoToDevice         bool
	NoDeviceExtensions bool
	// LegacyQueryToken puts the hs_token also into the query of requests to appservices, as Synapse does with
	// use_appservice_legacy_authorization. Continuwuity and Tuwunel always do.
	LegacyQueryToken bool
}

func (o *Options) fill() {
	if o.ServerName == "" {
		o.ServerName = "hs.test"
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.RetryUnit == 0 {
		o.RetryUnit = time.Second
	}
	if o.PushTimeout == 0 {
		o.PushTimeout = o.Personality.traits().timeout
	}
	if o.MaxUpload == 0 {
		o.MaxUpload = 50 << 20
	}
}
