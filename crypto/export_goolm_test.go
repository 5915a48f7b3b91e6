//go:build goolm

package crypto

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	goolm "maunium.net/go/mautrix/crypto/goolm/session"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Machines is how many machines are in memory.
func Machines(c *Crypto) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.machines)
}

// Unload forgets the machines that were not used since then.
func Unload(c *Crypto, since time.Time) { c.unload(since) }

// GiveAgainAfter is after how long a room gets another key because a device had none left.
func GiveAgainAfter(c *Crypto, wait time.Duration) { c.shortAgain = wait }

// AskSilentAfter is after how long a server that did not answer is asked for devices again.
func AskSilentAfter(c *Crypto, wait time.Duration) { c.silentAgain = wait }

// ProbeOften makes it be found out fast what transactions bring.
func ProbeOften(o *Options) { o.probing = &probing{200 * time.Millisecond, time.Hour} }

// SendInBatches is how requests of encryption leave.
var SendInBatches = sendInBatches

// MostLearnt is how many rows about devices are written in one commit.
const MostLearnt = mostLearnt

// Commits are how many users each commit of an answer is about that says so many rows of each.
func Commits(rows ...int) (commits []int) {
	a := &answer{}
	for n, rows := range rows {
		for range rows {
			a.add(id.UserID(fmt.Sprint(n)), 1, nil)
		}
	}
	for users := a.next(); len(users) > 0; users = a.next() {
		commits = append(commits, len(users))
	}
	return commits
}

// TriedInVain is the minute at which a device is tried again that was tried in vain at those minutes from start on.
func TriedInVain(start time.Time, minutes []int) (next int) {
	var a again
	for _, minute := range minutes {
		a = a.inVain(start.Add(time.Duration(minute)*time.Minute), usualShortAgain, mostShortAgain)
	}
	return int(a.next.Sub(start) / time.Minute)
}

// KeepBegun is how many Olm sessions of one user a device keeps that are with none of his devices.
func KeepBegun(c *Crypto, most int) { c.mostBegun = most }

// RememberSenders is of how many messages a machine remembers the senders' keys.
func RememberSenders(c *Crypto, most int) { c.mostSenders = most }

// Senders is how many sender keys mautrix's machine of a user remembers.
func Senders(ctx context.Context, c *Crypto, user id.UserID) (int, error) {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return 0, err
	}
	defer release()
	l, err := m.load(ctx)
	if err != nil {
		return 0, err
	}
	return reflect.ValueOf(l.store.SQLCryptoStore).Elem().FieldByName("olmSessionCache").Len(), nil
}

// KeepGone is how many devices of one user are remembered that are gone.
func KeepGone(c *Crypto, most int) { c.mostGone = most }

const (
	MostDevices = mostDevices
	MostSigned  = mostSigned
	MostKeys    = mostKeys
	MostSaid    = mostSaid
	MostOfUser  = mostOfUser
	MostChecked = mostChecked

	MostOfServer = mostOfServer
	UsualOfUser  = usualOfUser
)

// CutQueried leaves out of an answer about users what is too much.
func CutQueried(users []id.UserID, body []byte) ([]byte, error) {
	log, asked := zerolog.Nop(), mautrix.DeviceKeysRequest{}
	for _, user := range users {
		asked[user] = mautrix.DeviceIDList{}
	}
	said, err := readQueried(&log, asked, bytes.NewReader(body), true)
	if err != nil {
		return nil, err
	}
	return cutQueried(&log, said)
}

// ErrTooMuch is that more was said than is read.
var ErrTooMuch = errTooMuch

// ReadQueried reads an answer to a question about one user by who looks whether something is there.
func ReadQueried(user id.UserID, body io.Reader) (any, error) {
	log := zerolog.Nop()
	return readQueried(&log, mautrix.DeviceKeysRequest{user: {}}, body, false)
}

// Sift gives what is held of an answer about the devices of users, and of whom it says too much.
func Sift(users []id.UserID, body io.Reader) (map[id.UserID]json.RawMessage, map[id.UserID]bool, error) {
	most := map[id.UserID]int{}
	for _, user := range users {
		most[user] = mostSentOfUser
	}
	s, err := sift(body, most, "device_keys", "master_keys", "self_signing_keys")
	return s.sections["device_keys"], s.tooMuch, err
}

// KeepUnread is how many room keys of one user a device keeps that have opened nothing.
func KeepUnread(c *Crypto, most int) { c.mostUnread = most }

// ForgetUnknown has a user be asked for devices again at once who had none of a key.
func ForgetUnknown(c *Crypto, user id.UserID) { c.mends.unknown.forget(string(user)) }

// UnknownAtOnce senders are asked for at once who have named a key that none of their devices has, and then one each UnknownEvery.
const UnknownAtOnce, UnknownEvery = unknownAtOnce, unknownEvery

// WhoseAtOnce is how many senders are asked for at once while other to-device messages wait.
const WhoseAtOnce = whoseAtOnce

// Many is how what users have sent is looked at only now and then.
var Many = many

// Step has a user's device write a message with the Olm session that it has with who has these keys, and do something else between reading the session and writing it.
func Step(ctx context.Context, c *Crypto, user id.UserID, key id.SenderKey, signing id.SigningKey, between func()) (typ id.OlmMsgType, body []byte, err error) {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return 0, nil, err
	}
	defer release()
	err = m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		operationOf(ctx).to.by = map[id.IdentityKey]*id.Device{key: {IdentityKey: key, SigningKey: signing}}
		session, err := l.store.GetLatestSession(ctx, key)
		if err != nil || session == nil {
			return fmt.Errorf("there is no session: %w", err)
		}
		between()
		if typ, body, err = session.Encrypt([]byte("{}")); err != nil {
			return err
		}
		return l.store.UpdateSession(ctx, key, session)
	})
	return typ, body, err
}

// Few are the devices of a user that are read, and how many are not.
func Few(user id.UserID, self id.Ed25519, devices map[id.DeviceID]json.RawMessage) (few []id.DeviceID, more int) {
	few, rest := (&owner{user: user, self: self}).few(devices, mostOfUser)
	return few, len(rest)
}

// Spoil makes the Olm sessions of a user's device with who has a key such that they cannot be written with, or the one alone that would be written with next.
func Spoil(ctx context.Context, c *Crypto, user id.UserID, key id.SenderKey, all bool) error {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return err
	}
	defer release()
	defer m.discard()
	return m.olmWork(ctx, func(ctx context.Context, l *loaded) error {
		latest, err := l.store.SQLCryptoStore.GetLatestSession(ctx, key)
		if err != nil {
			return err
		}
		sessions, err := l.store.GetSessions(ctx, key)
		for _, session := range sessions {
			if !all && session.ID() != latest.ID() {
				continue
			}
			chains := session.Internal.(*goolm.OlmSession).Ratchet.ReceiverChains
			for n := range chains {
				chains[n].RKey = make([]byte, 32)
			}
			if err := l.store.UpdateSession(ctx, key, session); err != nil {
				return err
			}
		}
		return err
	})
}

// CanWrite says what is wrong with a session that cannot be written with.
var CanWrite = canWrite

// WriteWith writes with a session as mautrix does, which the store has handed out so many times, and says what is wrong with it afterwards.
func WriteWith(internal olm.Session, handed int) (body []byte, err, failed error) {
	session := &crypto.OlmSession{Internal: internal}
	for range handed {
		session = toWrite(session)
	}
	_, body, err = session.Internal.Encrypt([]byte("{}"))
	return body, err, brokenOff(session)
}

// ErrPanic is what comes of a panic.
var ErrPanic = errPanic

// Panic panics in a job of a user's device, and in its work, and says whether what panicked is still in memory.
func Panic(ctx context.Context, c *Crypto, user id.UserID) (inJob, inWork error, kept bool) {
	m, release, err := c.useOf(ctx, user)
	if err != nil {
		return err, err, false
	}
	defer release()
	var in *loaded
	isKept := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return in != nil && m.loaded == in
	}
	inJob = m.olmJob(ctx, func(_ context.Context, _ *store.Tx, l *loaded) error { in = l; panic("in a job") })
	kept = isKept()
	inWork = m.olmWork(ctx, func(_ context.Context, l *loaded) error { in = l; panic("in its work") })
	return inJob, inWork, kept || isKept()
}

var MostSentOfServer = mostSentOfServer
