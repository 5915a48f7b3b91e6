//go:build goolm

package crypto

import (
	"context"
	"errors"
	"reflect"
	"sync/atomic"
	"time"
	"unsafe"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/goolm/account"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// What tests of keys need: they use a homeserver of bridgetest, and so are outside of the package.
const (
	OutstandingKeys = outstandingKeys
	FewKeys         = fewKeys
	FallbackFor     = fallbackFor

	ApprovalPause    = approvalPause
	ApprovalPatience = approvalPatience
)

type Secrets = secrets

var (
	ShareKeys       = shareKeys
	RepairKeys      = repairKeys
	ReplaceFallback = replaceFallback
)

// CrossSigner is the crossSigner of a machine.
type CrossSigner struct{ c *crossSigner }

func NewCrossSigner(mach *crypto.OlmMachine, s Secrets, tell func(string), patience time.Duration) CrossSigner {
	return CrossSigner{&crossSigner{mach: mach, secrets: s, tell: tell, pause: time.Millisecond, patience: patience}}
}

// Ask is as for the bot: the homeserver is asked also where there are keys.
func (c CrossSigner) Ask()                                 { c.c.ask = true }
func (c CrossSigner) Ensure(ctx context.Context) error     { return c.c.ensure(ctx) }
func (c CrossSigner) Reset(ctx context.Context) error      { return c.c.reset(ctx) }
func (c CrossSigner) SignDevice(ctx context.Context) error { return c.c.signDevice(ctx) }

const (
	ClaimsAtOnce  = claimsAtOnce
	ClaimsEvery   = claimsEvery
	ClaimsLongest = claimsLongest
)

// Claims are the buckets of devices.
type Claims struct{ c claims }

func (c *Claims) Take(devices []id.SigningKey, now time.Time) time.Duration {
	return c.c.take(devices, now)
}
func (c *Claims) Kept() int { return len(c.c.buckets) }

// Mended waits until nothing is mended.
func (c *Crypto) Mended() {
	for len(c.mends.turns) > 0 {
		time.Sleep(time.Millisecond)
	}
}

// Repaired has a user's device take its one-time keys as replaced just now.
func (c *Crypto) Repaired(ctx context.Context, user id.UserID) {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		panic(err)
	}
	defer release()
	err = m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		_, err := mayRepair(ctx, l.store, time.Now())
		return err
	})
	if err != nil {
		panic(err)
	}
}

// MayRepair is mayRepair with secrets of a test's.
var MayRepair = mayRepair

const (
	RepairEvery  = repairEvery
	RepairSeldom = repairSeldom
)

// Backoff is a backoff.
type Backoff struct{ b backoff }

func NewBackoff(first, most time.Duration) *Backoff {
	return &Backoff{backoff{first: first, most: most}}
}

func (b *Backoff) May(name string, now time.Time) bool { return b.b.may(name, now) }

// NewPace is a pace.
func NewPace(atOnce float64, every time.Duration) func(now time.Time) bool {
	return (&pace{atOnce: atOnce, every: every}).may
}

// Spoil changes the account of a user's device behind everybody's back.
func (c *Crypto) Spoil(ctx context.Context, user id.UserID, spoil func(a *account.Account)) error {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return err
	}
	defer release()
	return m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		spoil(l.GetAccount().Internal.(*account.Account))
		return l.store.PutAccount(ctx, l.GetAccount())
	})
}

// Devices are those of another user that get keys.
func (c *Crypto) Devices(ctx context.Context, user, of id.UserID) (devices map[id.DeviceID]*id.Device, err error) {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := m.load(ctx)
	if err != nil {
		return nil, err
	}
	return l.store.GetDevices(ctx, of)
}

// Session is a room key that a user's device has.
func (c *Crypto) Session(ctx context.Context, user id.UserID, room id.RoomID, session id.SessionID) (*crypto.InboundGroupSession, error) {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := m.load(ctx)
	if err != nil {
		return nil, err
	}
	return l.store.GetGroupSession(ctx, room, session)
}

// SenderKeys is what an Olm message of a user's device says of it: mautrix keeps it in the field that is read here.
func (c *Crypto) SenderKeys(ctx context.Context, user id.UserID) (*mautrix.DeviceKeys, error) {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := m.load(ctx)
	if err != nil {
		return nil, err
	}
	field := reflect.ValueOf(l.OlmMachine).Elem().FieldByName("ownDeviceKeysCache")
	return (*atomic.Pointer[mautrix.DeviceKeys])(unsafe.Pointer(field.UnsafeAddr())).Load(), nil
}

// Await waits for the key of an event.
func (c *Crypto) Await(ctx context.Context, user id.UserID, ev *appservice.Event) error {
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := c.Open(ctx, ev, user)
		if !errors.Is(err, ErrNoKey) {
			return nil
		}
		if time.Now().After(until) {
			return err
		}
	}
}
