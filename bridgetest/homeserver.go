package bridgetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/internal/pipenet"
)

// Homeserver is a running homeserver. Its methods may be called from several goroutines at once.
type Homeserver struct {
	opts       Options
	traits     *traits
	url        string
	memory     *pipenet.Net // nil when it listens on an address
	server     *http.Server
	pusher     *http.Client
	routes     []route
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	log        requestLog
	faults     faults
	pushFaults pushFaults

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
	txnCache map[string]cached      // dies with a restart
	txnStore map[string]string      // survives it
	arrival  int64                  // of the last event, in unix nanoseconds
	sequence int                    // of appservice transactions, shared by all appservices
	buckets  map[bucketID]time.Time // of rate limits
	leaks    []string               // requests whose URL held a token
	started  bool                   // whether recoverers run; false after a restart until something happens
}

// StartHomeserver starts a homeserver; the caller ends it with Close.
func StartHomeserver(opts Options) (*Homeserver, error) {
	if opts.Personality < 0 || int(opts.Personality) >= len(personalities) {
		return nil, fmt.Errorf("starting the homeserver: there is no %s", opts.Personality)
	}
	opts.fill()
	var memory *pipenet.Net
	var ln net.Listener
	var err error
	url := ""
	if opts.InMemory {
		memory = pipenet.NewNet()
		ln, err = memory.Listen("tcp", "homeserver"+inMemory)
		url = "http://homeserver" + inMemory
	} else if ln, err = net.Listen("tcp", opts.Listen); err == nil {
		url = "http://" + ln.Addr().String()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the homeserver on %s: %w", opts.Listen, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	hs := &Homeserver{
		opts: opts, traits: opts.Personality.traits(), url: url, ctx: ctx, cancel: cancel, started: true,
		memory:   memory,
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
		buckets:  make(map[bucketID]time.Time),
	}
	hs.routes = hs.routeTable()
	hs.pusher = hs.newPushClient()
	hs.server = &http.Server{Handler: hs, BaseContext: func(net.Listener) context.Context { return ctx }}
	hs.wg.Go(func() { _ = hs.server.Serve(ln) })
	return hs, nil
}

// NewHomeserver starts a homeserver for a test, closes it when the test ends, and fails the test when the URL of any request,
// to whatever path and whatever came of it, had an access_token or a token's value in it, where tokens end up in logs
// (MSC4126). Without options it is [Synapse].
func NewHomeserver(tb testing.TB, options ...Option) *Homeserver {
	tb.Helper()
	var o Options
	for _, option := range options {
		option.apply(&o)
	}
	if o.RetryUnit == 0 && o.Clock == nil {
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

// Client makes a client that reaches the homeserver, also one that listens nowhere; a bridge gets it as
// appservice.Config.HTTPClient. Its connections end with the homeserver.
func (hs *Homeserver) Client() *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	if hs.memory != nil {
		transport.DialContext = hs.dial
	}
	return &http.Client{Transport: transport}
}

// inMemory is the end of the addresses in the network of a homeserver that listens nowhere.
const inMemory = ".memory.test:80"

// dial reaches who listens within the process, and everybody else over the machine's network.
func (hs *Homeserver) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if hs.memory != nil && strings.HasSuffix(address, inMemory) {
		return hs.memory.DialContext(ctx, network, address)
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// WithNetwork makes a bridge that runs with this context reach an [Options.InMemory] homeserver, and open no socket itself:
// in a bubble of testing/synctest the whole then takes the bubble's time. [StartBridge] does it by itself.
func (hs *Homeserver) WithNetwork(ctx context.Context) context.Context {
	if hs.memory == nil {
		return ctx
	}
	return pipenet.With(ctx, hs.memory)
}

// Domain is the server name.
func (hs *Homeserver) Domain() string { return hs.opts.ServerName }

// Personality is the kind of homeserver that it behaves as.
func (hs *Homeserver) Personality() Personality { return hs.opts.Personality }

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
