package ircd

import (
	"crypto/tls"
	"slices"
	"time"
)

// Capabilities are all that the server can offer, in the order in which it lists them.
var Capabilities = []string{
	"account-tag", "away-notify", "batch", "cap-notify", "draft/chathistory", "draft/message-redaction", "echo-message", "extended-join", "labeled-response",
	"message-tags", "multi-prefix", "sasl", "server-time",
}

// Options say what kind of server to start. The zero value is a server on a free loopback port with every capability,
// no TLS, no password, and no flood limit.
type Options struct {
	Name    string // of the server, "irc.test" by default
	Network string // NETWORK in ISUPPORT, "TestNet" by default

	Listen    []string    // TCP addresses. nil: 127.0.0.1:0; empty, not nil: none, clients come by Server.Serve
	ListenTLS []string    // TLS addresses; none by default
	TLS       *tls.Config // for ListenTLS; without it, a certificate of the server's own (Server.CertificatePEM)

	Password string            // PASS that clients must give, if not empty
	Accounts map[string]string // account name to password, for SASL PLAIN
	MOTD     []string

	// Capabilities to offer. nil: all of them (sasl only with Accounts, draft/chathistory only with History). Empty, not nil: none, and CAP itself is an
	// unknown command, as on the oldest servers.
	Capabilities []string

	CaseMapping string // "ascii", "rfc1459" or "strict-rfc1459"; "rfc1459" by default
	NickLen     int    // bytes, 30 by default
	ChannelLen  int    // bytes, 64 by default
	TopicLen    int    // bytes, 390 by default
	LineLen     int    // bytes of a line without tags, with CRLF; 512 by default

	Flood Flood

	History int // messages of each channel that are kept, and given to who asks (draft/chathistory); 0: none

	PingInterval time.Duration // of silence after which a client is asked for life, and again until it is dropped; 2 min by default
	SendQueue    int           // bytes waiting for one client beyond which it is dropped; 1 MiB by default
}

// Flood closes the link of a registered client that sends lines faster than a bucket allows. The zero value allows
// everything.
type Flood struct {
	Burst    int           // lines at once; 0: no limit
	Interval time.Duration // for one more line
}

func (o *Options) fill() {
	text := func(at *string, value string) {
		if *at == "" {
			*at = value
		}
	}
	number := func(at *int, value int) {
		if *at <= 0 {
			*at = value
		}
	}
	text(&o.Name, "irc.test")
	text(&o.Network, "TestNet")
	text(&o.CaseMapping, "rfc1459")
	number(&o.NickLen, 30)
	number(&o.ChannelLen, 64)
	number(&o.TopicLen, 390)
	number(&o.LineLen, 512)
	number(&o.SendQueue, 1<<20)
	if o.PingInterval <= 0 {
		o.PingInterval = 2 * time.Minute
	}
	if o.Listen == nil {
		o.Listen = []string{"127.0.0.1:0"}
	}
	if o.MOTD == nil {
		o.MOTD = []string{"Welcome to " + o.Network + "."}
	}
	if o.Capabilities == nil {
		o.Capabilities = slices.Clone(Capabilities)
	}
	if o.History <= 0 {
		o.Capabilities = slices.DeleteFunc(slices.Clone(o.Capabilities), func(c string) bool { return c == historyCap })
	}
	if len(o.Accounts) == 0 {
		o.Capabilities = slices.DeleteFunc(slices.Clone(o.Capabilities), func(c string) bool { return c == "sasl" })
	}
}
