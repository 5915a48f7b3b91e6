//go:build goolm

package crypto

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// doubtDevicesEvery is how often everybody's devices are asked for anew before they get a key. A homeserver that could not reach the bridge for a while
// has dropped what it had to tell of devices, and does not say so.
const doubtDevicesEvery = 6 * time.Hour

// deviceLists hears whose devices have changed. That they are outdated is written when the transaction is taken in, before any key is used again; it is
// written once more here for who calls HandleKeys without it. Who has left is not told by Synapse: that comes as membership.
func (c *Crypto) deviceLists(ctx context.Context, ev *appservice.Event) error {
	var lists struct {
		Changed []string `json:"changed"`
		Left    []string `json:"left"`
	}
	if err := json.Unmarshal(ev.Raw, &lists); err != nil {
		return appservice.Permanent(fmt.Errorf("device lists: %w", err))
	}
	users := append(lists.Changed, lists.Left...)
	for _, user := range users {
		c.hears(id.UserID(user))
		if c.as.Owns(id.UserID(user)) {
			c.doubtOwn(id.UserID(user))
		}
	}
	return c.commit(ctx, func(_ context.Context, tx *store.Tx) error { return tx.OutdateDevices(users...) })
}

// doubtOwn has Prepare look at a user of the bridge again.
func (c *Crypto) doubtOwn(user id.UserID) {
	c.prepared.Range(func(key, _ any) bool {
		if key.(deviceKey).user == user {
			c.prepared.Delete(key)
		}
		return true
	})
}

// doubtDevices marks the devices of all users as outdated, at start and from time to time.
func (c *Crypto) doubtDevices(ctx context.Context) error {
	return c.commit(ctx, func(_ context.Context, tx *store.Tx) error { return tx.OutdateAllDevices() })
}

func (c *Crypto) doubtDevicesNowAndThen(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := c.doubtDevices(context.Background()); err != nil {
				c.log.Warn().Err(err).Msg("The devices of all users could not be marked as outdated; it is tried again later")
			}
		case <-c.quit:
			return
		}
	}
}

// freshen makes sure before a room key is used again that the devices of the room's members are known: those that are outdated are asked for, all in one
// request, and when they have changed the keys of their rooms are dropped. Those of a server that did not answer are asked for seldom: each time, the message
// waits for as long as the homeserver waits for that server. When the server was heard of since, they are asked for before their time, which each room does once
// in [Crypto.silentAgain], whoever writes there: nobody can hold it up by speaking and not answering. It gives whom it has asked
// for. The caller holds the room's lock, not the Olm lock.
func (c *Crypto) freshen(ctx context.Context, m *machine, room id.RoomID) (asked []id.UserID, err error) {
	outdated, err := c.store.OutdatedMembers(ctx, string(room))
	if err != nil {
		return nil, err
	}
	var users, heard []id.UserID
	for _, user := range outdated {
		asked, silent := c.isSilent(id.UserID(user))
		switch {
		case !silent:
			users = append(users, id.UserID(user))
		case asked.heard:
			heard = append(heard, id.UserID(user))
		}
	}
	if len(heard) > 0 && c.early.may(string(room), c.silentAgain, time.Now()) {
		users = append(users, heard...)
	}
	if len(users) == 0 {
		return nil, nil
	}
	if err := m.askFor(ctx, users); err != nil {
		return nil, fmt.Errorf("ask for the devices of the room's members: %w", err)
	}
	return users, nil
}

const (
	usualSilentAgain = time.Minute
	mostSilentAgain  = time.Hour
)

// askFor asks the homeserver for the devices of users. Those of whom it says nothing, because it cannot reach their server, stay outdated.
func (m *machine) askFor(ctx context.Context, users []id.UserID) error {
	return m.deviceWork(ctx, func(ctx context.Context, l *loaded) error { return m.c.askFor(ctx, l, users) })
}

// askIfHas asks for the devices of a user, and takes the answer in if one of them has a key.
func (m *machine) askIfHas(ctx context.Context, user id.UserID, key id.IdentityKey) (has bool, err error) {
	err = m.deviceWork(ctx, func(ctx context.Context, l *loaded) error {
		users, a := []id.UserID{user}, &answer{}
		answered, err := l.FetchKeys(context.WithValue(ctx, answerKey{}, a), users, true)
		for _, device := range answered[user] {
			has = has || device.IdentityKey == key
		}
		if err != nil || !has {
			return err
		}
		return m.c.take(ctx, l, users, answered, a)
	})
	return has, err
}

func (c *Crypto) askFor(ctx context.Context, l *loaded, users []id.UserID) error {
	return c.askForIn(ctx, l, users, &answer{})
}

func (c *Crypto) askForIn(ctx context.Context, l *loaded, users []id.UserID, a *answer) error {
	answered, err := l.FetchKeys(context.WithValue(ctx, answerKey{}, a), users, true)
	if err != nil {
		return err
	}
	return c.take(ctx, l, users, answered, a)
}

// take takes in what the homeserver has answered about users.
func (c *Crypto) take(ctx context.Context, l *loaded, users []id.UserID, answered map[id.UserID]map[id.DeviceID]*id.Device, a *answer) error {
	for _, user := range users {
		if _, ok := answered[user]; !ok {
			a.add(user, 1, func(ctx context.Context) error { return store.TxOf(ctx).DevicesUnknown(string(user)) })
		}
	}
	if err := l.store.learn(ctx, a); err != nil {
		return err
	}
	for _, user := range users {
		if _, ok := answered[user]; ok {
			c.silent.Delete(user)
			continue
		}
		asked, _ := c.silent.Load(user)
		before, _ := asked.(silence)
		c.silent.Store(user, silence{before.inVain(time.Now(), c.silentAgain, mostSilentAgain), false})
	}
	return nil
}

// silence is when the devices of a user are asked for again whose server did not answer.
type silence struct {
	again
	heard bool // of the server, since then
}

// GetDevices gives mautrix none to compare an answer with. It would keep a device that was logged in again under the same ID, with other keys, as one whose
// keys do not match, for ever. What becomes of those [keyStore.believed] says. Of its own devices the bridge knows better.
func (s *keyStore) GetDevices(ctx context.Context, user id.UserID) (map[id.DeviceID]*id.Device, error) {
	if ctx.Value(answerKey{}) != nil && store.TxOf(ctx) == nil && !s.c.as.Owns(user) {
		return nil, nil
	}
	devices, err := s.SQLCryptoStore.GetDevices(ctx, user)
	if op := operationOf(ctx); op != nil && store.TxOf(ctx) == nil {
		devices = op.to.without(devices)
	}
	return devices, err
}

// believed leaves out of a user's devices those that have other ed25519 keys than were known under their IDs, where the user has cross-signing keys and has not signed
// these: the homeserver may have swapped them. Of a user without there is nobody to ask who they are: such a device is taken, as a new one of another
// ID would be, and the log tells of it. It runs in a job, behind what else the answer says.
func (s *keyStore) believed(ctx context.Context, user id.UserID, devices map[id.DeviceID]*id.Device) (map[id.DeviceID]*id.Device, error) {
	if s.c.as.Owns(user) {
		return devices, nil
	}
	known := map[id.DeviceID]id.SigningKey{} // also what is gone, but not what only a message names: its sender may give it any ID
	rows, err := s.DB.Query(ctx, `SELECT device_id, signing_key FROM crypto_device WHERE user_id = $1 AND name <> $2`, user, onlyOfMessage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name id.DeviceID
		var key id.SigningKey
		if err := rows.Scan(&name, &key); err != nil {
			return nil, err
		}
		known[name] = key
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	believed := maps.Clone(devices)
	for name, device := range devices {
		if before, ok := known[name]; !ok || before == device.SigningKey {
			continue
		}
		keys, err := s.GetCrossSigningKeys(ctx, user)
		if err != nil {
			return nil, err
		}
		self, has := keys[id.XSUsageSelfSigning]
		log := s.c.log.Warn().Stringer("user", user).Stringer("device", name)
		if !has {
			log.Msg("A device has other keys than it had. Its user has no cross-signing keys that would tell whether it was logged in again; it is taken as a new one")
			continue
		}
		signed, err := s.IsKeySignedBy(ctx, user, device.SigningKey, user, self.Key)
		if err != nil {
			return nil, err
		}
		if !signed {
			log.Msg("A device has other keys than it had, and its user has not signed them: it is left out")
			delete(believed, name)
		}
	}
	return believed, nil
}

// outdated says whether it is known that the devices of a user are no longer those that are known.
func (s *keyStore) outdated(ctx context.Context, user id.UserID) (outdated bool, err error) {
	err = s.DB.QueryRow(ctx, `SELECT devices_outdated FROM crypto_tracked_user WHERE user_id = $1`, user).Scan(&outdated)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil // nobody has asked for them
	}
	return outdated, err
}

// isSilent says whether the devices of a user were asked for in vain, and it is not yet time to ask again.
func (c *Crypto) isSilent(user id.UserID) (silence, bool) {
	asked, ok := c.silent.Load(user)
	before, _ := asked.(silence)
	return before, ok && time.Now().Before(before.next)
}

// hears notes that something has come from a user's server, which may answer by now.
func (c *Crypto) hears(user id.UserID) {
	if asked, ok := c.silent.Load(user); ok {
		c.silent.CompareAndSwap(user, asked, silence{asked.(silence).again, true})
	}
}

// dropIfOther drops the keys of all rooms of a user whose devices are others than before, of all devices of the bridge, in the commit that takes the new
// ones in: mautrix does so for one of its machines only, and in a commit of its own. It runs in a job.
func (s *keyStore) dropIfOther(ctx context.Context, user id.UserID, devices map[id.DeviceID]*id.Device) error {
	before, err := s.GetDevices(ctx, user)
	if err != nil || before == nil { // nobody has asked for them yet, and so no key was given to them
		return err
	}
	same := len(before) == len(devices)
	for device, known := range before {
		now := devices[device]
		same = same && now != nil && now.IdentityKey == known.IdentityKey && now.SigningKey == known.SigningKey && now.Trust == known.Trust
	}
	if same {
		return nil
	}
	return s.dropKeysOf(ctx, user)
}

// signatureCounts says whether a signature may change how far a known device is trusted: it is then by a known cross-signing key, of a device that the homeserver
// has named or of another such key. Anybody can sign anything with keys that he makes up, and send it. It runs in a job.
func (s *keyStore) signatureCounts(ctx context.Context, signed id.UserID, signedKey id.Ed25519, signer id.UserID, signerKey id.Ed25519) (bool, error) {
	isCrossSigning := func(user id.UserID, key id.Ed25519) (bool, error) {
		keys, err := s.GetCrossSigningKeys(ctx, user)
		for _, known := range keys {
			if known.Key == key {
				return true, err
			}
		}
		return false, err
	}
	if by, err := isCrossSigning(signer, signerKey); err != nil || !by {
		return false, err
	}
	devices, err := s.GetDevices(ctx, signed)
	if err != nil {
		return false, err
	}
	for _, device := range devices {
		if device.SigningKey == signedKey {
			return true, nil
		}
	}
	return isCrossSigning(signed, signedKey)
}

// dropIfTrusted drops the keys of all rooms of a user when what was just written may change how far the user's devices are trusted: some were left out of the
// keys that there are, or have one that they are not to have. It runs in a job.
func (s *keyStore) dropIfTrusted(ctx context.Context, user id.UserID, changed bool) error {
	if !changed || s.c.opts.Send == TrustAny {
		return nil
	}
	return s.dropKeysOf(ctx, user)
}
