package bridgetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Options say how a homeserver starts. The zero value is good for tests.
type Options struct {
	// ServerName is the part of user IDs after the colon; "hs.test" when empty.
	ServerName string
	// Listen is the address to listen on; "127.0.0.1:0", a free port of the loopback, when empty.
	Listen string
	// RetryUnit stands for the second in the pauses between retries of a failed transaction, which are 2, 4, 8 … 512
	// units long; one second when zero. NewHomeserver takes 5 ms when it is not set.
	RetryUnit time.Duration
	// PushTimeout bounds the wait for the headers of an appservice's answer; 60 s when zero.
	PushTimeout time.Duration
	// MaxUpload is the greatest size of uploaded media in bytes; 50 MiB when zero. Larger uploads are met with a reset
	// of the connection, as by Synapse.
	MaxUpload int64
	// RestartSequence makes transaction IDs start again after Restart, as Synapse's do on SQLite when nothing is pending.
	RestartSequence bool
	// NoToDevice and NoDeviceExtensions switch off the experimental features msc2409_to_device_messages_enabled and
	// msc3202_transaction_extensions, which a homeserver has off unless its administrator switched them on.
	NoToDevice         bool
	NoDeviceExtensions bool
	// LegacyQueryToken puts the hs_token also into the query of requests to appservices, as Synapse does with
	// use_appservice_legacy_authorization.
	LegacyQueryToken bool
}

// Homeserver is a running homeserver. Its methods may be called from several goroutines at once.
type Homeserver struct {
	opts   Options
	url    string
	server *http.Server
	pusher *http.Client
	routes []route
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	log    requestLog
	faults faults

	mu       sync.Mutex // guards everything below
	closed   bool
	changed  chan struct{} // closed and replaced when the stream moves
	stream   int64
	accounts map[string]*account
	tokens   map[string]*session
	rooms    map[string]*room
	events   map[string]*pdu
	aliases  map[string]*alias
	media    map[string]*mediaFile
	services map[string]*appService
	filters  map[string]syncFilter
	people   map[string]*User
	txnCache map[string]cached // dies with a restart
	txnStore map[string]string // survives it
	sequence int               // of appservice transactions, shared by all appservices
	leaks    []string          // requests whose URL held a token
	started  bool              // whether recoverers run; false after a restart until something happens
}

// StartHomeserver starts a homeserver; the caller ends it with Close.
func StartHomeserver(opts Options) (*Homeserver, error) {
	if opts.ServerName == "" {
		opts.ServerName = "hs.test"
	}
	if opts.Listen == "" {
		opts.Listen = "127.0.0.1:0"
	}
	if opts.RetryUnit == 0 {
		opts.RetryUnit = time.Second
	}
	if opts.PushTimeout == 0 {
		opts.PushTimeout = time.Minute
	}
	if opts.MaxUpload == 0 {
		opts.MaxUpload = 50 << 20
	}
	ln, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("starting the homeserver on %s: %w", opts.Listen, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	hs := &Homeserver{
		opts: opts, url: "http://" + ln.Addr().String(), ctx: ctx, cancel: cancel, started: true,
		changed:  make(chan struct{}),
		accounts: make(map[string]*account),
		tokens:   make(map[string]*session),
		rooms:    make(map[string]*room),
		events:   make(map[string]*pdu),
		aliases:  make(map[string]*alias),
		media:    make(map[string]*mediaFile),
		services: make(map[string]*appService),
		filters:  make(map[string]syncFilter),
		people:   make(map[string]*User),
		txnCache: make(map[string]cached),
		txnStore: make(map[string]string),
	}
	hs.routes = hs.routeTable()
	hs.pusher = newPushClient(opts.PushTimeout)
	hs.server = &http.Server{Handler: hs, BaseContext: func(net.Listener) context.Context { return ctx }}
	hs.wg.Go(func() { _ = hs.server.Serve(ln) })
	return hs, nil
}

// NewHomeserver starts a homeserver for a test, closes it when the test ends, and fails the test when the URL of any request,
// to whatever path and whatever came of it, had an access_token or a token's value in it, where tokens end up in logs
// (MSC4126). At most one Options is taken.
func NewHomeserver(tb testing.TB, opts ...Options) *Homeserver {
	tb.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	if o.RetryUnit == 0 {
		o.RetryUnit = 5 * time.Millisecond
	}
	hs, err := StartHomeserver(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := hs.Close(); err != nil {
			tb.Errorf("closing the homeserver: %v", err)
		}
		hs.mu.Lock()
		defer hs.mu.Unlock()
		for _, leak := range hs.leaks {
			tb.Errorf("%s", leak)
		}
	})
	return hs
}

// URL is the base URL of the client-server API, without a slash at its end.
func (hs *Homeserver) URL() string { return hs.url }

// Domain is the server name.
func (hs *Homeserver) Domain() string { return hs.opts.ServerName }

// Close ends the homeserver: listeners, connections, long polls and pushing. It returns when the last goroutine ended.
func (hs *Homeserver) Close() error {
	hs.mu.Lock()
	if hs.closed {
		hs.mu.Unlock()
		return nil
	}
	hs.closed = true
	for _, r := range hs.rooms {
		r.stopTimers()
	}
	for _, as := range hs.services {
		as.stop()
	}
	people := make([]*User, 0, len(hs.people))
	for _, u := range hs.people {
		people = append(people, u)
	}
	hs.mu.Unlock()
	hs.cancel()
	err := hs.server.Close()
	hs.wg.Wait()
	hs.pusher.CloseIdleConnections()
	for _, u := range people {
		u.http.CloseIdleConnections()
	}
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}
