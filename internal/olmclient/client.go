//go:build goolm

package olmclient

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
)

// patience is how long is waited for what has to come. It is long, because nothing is learnt from a slow machine.
const patience = 2 * time.Minute

// Options say who a client is.
type Options struct {
	URL      string // of the homeserver
	User     id.UserID
	Password string
	HTTP     *http.Client // nil: one that keeps no connections, so that none is found dead after a server's restart
	// Unsigned leaves the device without the signature of its owner, and the owner without cross-signing keys unless another device
	// made them: strict clients leave such a device out.
	Unsigned bool
	// ShareWithAll gives room keys to every device, whoever vouches for it, and accepts everybody's words.
	ShareWithAll bool
	Log          zerolog.Logger
}

// Client is one device of a user.
type Client struct {
	User   id.UserID
	Device id.DeviceID
	// Matrix makes requests as this device; what it sends is not encrypted.
	Matrix *mautrix.Client

	tb      testing.TB
	opts    Options
	machine *crypto.OlmMachine
	state   *mautrix.MemoryStateStore
	using   sync.Mutex // the machine: mautrix's store in memory gives out its maps
	cancel  context.CancelFunc
	done    chan struct{}
	record
}

// Start logs a user in, on a new device, and reads what comes until the test ends. The first device of a user makes the cross-signing
// keys; more of them are made with [Client.NewDevice].
func Start(tb testing.TB, o Options) *Client {
	tb.Helper()
	return start(tb, o, nil)
}

// NewDevice logs the same user in once more, on a device that is signed with the same cross-signing keys.
func (c *Client) NewDevice() *Client {
	c.tb.Helper()
	return start(c.tb, c.opts, c.machine.CrossSigningKeys)
}

func start(tb testing.TB, o Options, signing *crypto.CrossSigningKeysCache) *Client {
	tb.Helper()
	if o.HTTP == nil {
		o.HTTP = &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	}
	matrix, err := mautrix.NewClient(o.URL, o.User, "")
	if err != nil {
		tb.Fatalf("%s: %v", o.User, err)
	}
	matrix.Client = o.HTTP
	c := &Client{User: o.User, Matrix: matrix, tb: tb, opts: o, state: mautrix.NewMemoryStateStore().(*mautrix.MemoryStateStore), done: make(chan struct{})}
	c.init()
	c.act("logging in", func(ctx context.Context) error {
		answer, err := matrix.Login(ctx, &mautrix.ReqLogin{
			Type: mautrix.AuthTypePassword, Password: o.Password, StoreCredentials: true,
			Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: string(o.User)},
		})
		if err == nil {
			c.Device = answer.DeviceID
		}
		return err
	})
	c.machine = crypto.NewOlmMachine(matrix, &o.Log, crypto.NewMemoryStore(nil), c.state)
	if !o.ShareWithAll {
		c.machine.SendKeysMinTrust = id.TrustStateCrossSignedTOFU
	}
	c.act("making keys", func(ctx context.Context) error { return c.prepare(ctx, signing) })
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go c.run(ctx)
	tb.Cleanup(func() {
		c.stop()
		if tb.Failed() {
			tb.Logf("what %s on %s has seen:\n%s", c.User, c.Device, c.transcript())
		}
	})
	return c
}

// prepare puts the device's keys on the homeserver. It is signed before the first Olm message, because mautrix puts the same
// description of the device into all of them.
func (c *Client) prepare(ctx context.Context, signing *crypto.CrossSigningKeysCache) error {
	if err := c.machine.Load(ctx); err != nil {
		return err
	}
	if err := c.machine.ShareKeys(ctx, 0); err != nil {
		return err
	}
	if c.opts.Unsigned {
		return nil
	}
	if signing == nil {
		made, err := c.machine.GenerateCrossSigningKeys()
		if err != nil {
			return err
		}
		if err := c.machine.PublishCrossSigningKeys(ctx, made, nil); err != nil {
			return fmt.Errorf("uploading cross-signing keys: %w", err)
		}
	} else if err := c.machine.ImportCrossSigningKeys(signing.Seeds()); err != nil {
		return err
	}
	if err := c.machine.SignOwnDevice(ctx, c.machine.OwnIdentity()); err != nil {
		return fmt.Errorf("signing the device: %w", err)
	}
	_, err := c.machine.FetchKeys(ctx, []id.UserID{c.User}, true)
	return err
}

// Logout ends the device on the homeserver.
func (c *Client) Logout() {
	c.tb.Helper()
	c.act("logging out", func(ctx context.Context) error {
		_, err := c.Matrix.Logout(ctx)
		return err
	})
	c.stop()
}

// Stop stops reading, as a client that is switched off does; the device stays.
func (c *Client) Stop() { c.stop() }

func (c *Client) stop() {
	c.cancel()
	<-c.done
	c.opts.HTTP.CloseIdleConnections()
}

// act makes a request with a time limit and fails the test when it fails.
func (c *Client) act(what string, request func(ctx context.Context) error) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := request(ctx); err != nil {
		c.tb.Fatalf("%s: %s: %v", c.User, what, err)
	}
}
