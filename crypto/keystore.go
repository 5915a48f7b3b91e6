//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// keyStore is mautrix's crypto store of one device, over the one writer: reading is mautrix's. A write is part of the job
// whose Tx is in the context, or else a job of its own, which only an operation may do ([machine.olmWork]): what mautrix
// begins by itself in the background holds none of the machine's locks, and is refused.
type keyStore struct {
	*crypto.SQLCryptoStore
	c       *Crypto
	claimed sync.Map // with whose one-time keys Olm sessions were begun: [id.SigningKey] by [id.SessionID]
}

var _ crypto.Store = (*keyStore)(nil)

func newKeyStore(m *machine) *keyStore {
	return &keyStore{SQLCryptoStore: crypto.NewSQLCryptoStore(m.c.keys, dbutil.NoopLogger, m.account(), m.device, m.c.opts.PickleKey), c: m.c}
}

var errBackground = errors.New("written without the locks of the machine")

func (s *keyStore) write(ctx context.Context, write func(ctx context.Context) error) error {
	if tx := store.TxOf(ctx); tx != nil {
		err := write(ctx)
		if err != nil {
			tx.Fail(err) // whatever mautrix makes of it
		}
		return err
	}
	return s.commit(ctx, write)
}

// commit writes what is staged, and then write if there is any.
func (s *keyStore) commit(ctx context.Context, write func(ctx context.Context) error) error {
	op := operationOf(ctx)
	if op == nil {
		return errBackground
	}
	writes, err := op.take()
	if write != nil {
		writes = append(writes, write)
	}
	if err != nil || len(writes) == 0 {
		return err
	}
	err = s.c.commit(ctx, func(ctx context.Context, _ *store.Tx) error {
		for _, write := range writes {
			if err := write(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		op.fail(fmt.Errorf("write keys of %s: %w", s.AccountID, err))
	}
	return err
}

// maxStaged bounds what is written in one job.
const maxStaged = 256

// stage is write for what mautrix writes for one device after the other when it shares a key: it waits for the next write, for who
// reads, and for a request, before which it is committed. So a key for a hundred devices is one commit, and what leaves is on disk all the same.
func (s *keyStore) stage(ctx context.Context, write func(ctx context.Context) error) error {
	op := operationOf(ctx)
	if store.TxOf(ctx) != nil || op == nil {
		return s.write(ctx, write)
	}
	if staged, err := op.stage(write); err != nil || staged < maxStaged {
		return err
	}
	return s.commit(ctx, nil)
}

// settle commits what is staged, for who reads. What is written to one device alone reads nothing of what was staged for the one before it.
func (s *keyStore) settle(ctx context.Context) error {
	if store.TxOf(ctx) != nil || operationOf(ctx) == nil || ctx.Value(aloneKey{}) != nil {
		return nil
	}
	return s.commit(ctx, nil)
}

func (s *keyStore) PutAccount(ctx context.Context, a *crypto.OlmAccount) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.PutAccount(ctx, a) })
}

func (s *keyStore) PutOlmHash(ctx context.Context, hash [32]byte, at time.Time) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.PutOlmHash(ctx, hash, at) })
}

func (s *keyStore) DeleteOldOlmHashes(ctx context.Context, before time.Time) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.DeleteOldOlmHashes(ctx, before) })
}

func (s *keyStore) SetGroupSessionKeyBackupVersion(ctx context.Context, session id.SessionID, version id.KeyBackupVersion) error {
	return s.write(ctx, func(ctx context.Context) error {
		return s.SQLCryptoStore.SetGroupSessionKeyBackupVersion(ctx, session, version)
	})
}

func (s *keyStore) PutGroupSession(ctx context.Context, g *crypto.InboundGroupSession) error {
	return s.write(ctx, func(ctx context.Context) error { return s.copyOf(ctx).PutGroupSession(ctx, g) })
}

// GetGroupSession gives an [opening] the copy of the event's sender, and tells it which that is.
func (s *keyStore) GetGroupSession(ctx context.Context, room id.RoomID, session id.SessionID) (*crypto.InboundGroupSession, error) {
	var g *crypto.InboundGroupSession
	var err error
	if o := openingOf(ctx); o != nil {
		g, o.account, err = s.copyForEvent(ctx, o.sender, room, session)
		o.session = g
	} else {
		g, err = s.copyOf(ctx).GetGroupSession(ctx, room, session)
	}
	if err != nil && !errors.Is(err, crypto.ErrGroupSessionWithheld) {
		return nil, inStore(err)
	}
	return g, err
}

func (s *keyStore) RedactGroupSession(ctx context.Context, room id.RoomID, session id.SessionID, reason string) error {
	return s.write(ctx, func(ctx context.Context) error {
		return s.SQLCryptoStore.RedactGroupSession(ctx, room, session, reason)
	})
}

func (s *keyStore) RedactGroupSessions(ctx context.Context, room id.RoomID, key id.SenderKey, reason string) (out []id.SessionID, err error) {
	err = s.write(ctx, func(ctx context.Context) error {
		out, err = s.SQLCryptoStore.RedactGroupSessions(ctx, room, key, reason)
		return err
	})
	return out, err
}

func (s *keyStore) RedactExpiredGroupSessions(ctx context.Context) (out []id.SessionID, err error) {
	err = s.write(ctx, func(ctx context.Context) error {
		out, err = s.SQLCryptoStore.RedactExpiredGroupSessions(ctx)
		return err
	})
	return out, err
}

func (s *keyStore) RedactOutdatedGroupSessions(ctx context.Context) (out []id.SessionID, err error) {
	err = s.write(ctx, func(ctx context.Context) error {
		out, err = s.SQLCryptoStore.RedactOutdatedGroupSessions(ctx)
		return err
	})
	return out, err
}

func (s *keyStore) PutWithheldGroupSession(ctx context.Context, content event.RoomKeyWithheldEventContent) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.PutWithheldGroupSession(ctx, content) })
}

func (s *keyStore) AddOutboundGroupSession(ctx context.Context, g *crypto.OutboundGroupSession) error {
	if op := operationOf(ctx); op != nil && op.giving != nil {
		if err := op.giving.by.giveToOthers(ctx, op, g); err != nil {
			return err
		}
	}
	return s.write(ctx, func(ctx context.Context) error {
		if op := operationOf(ctx); op != nil && op.giving.overtaken(store.TxOf(ctx)) {
			return errOvertaken
		}
		g.CreationTime = time.Now() // when it has been given to all, see wasGiven
		return s.SQLCryptoStore.AddOutboundGroupSession(ctx, g)
	})
}

func (s *keyStore) UpdateOutboundGroupSession(ctx context.Context, g *crypto.OutboundGroupSession) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.UpdateOutboundGroupSession(ctx, g) })
}

func (s *keyStore) RemoveOutboundGroupSession(ctx context.Context, room id.RoomID) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.RemoveOutboundGroupSession(ctx, room) })
}

func (s *keyStore) MarkOutboundGroupSessionShared(ctx context.Context, user id.UserID, key id.IdentityKey, session id.SessionID) error {
	return s.stage(ctx, func(ctx context.Context) error {
		return s.SQLCryptoStore.MarkOutboundGroupSessionShared(ctx, user, key, session)
	})
}

func (s *keyStore) IsOutboundGroupSessionShared(ctx context.Context, user id.UserID, key id.IdentityKey, session id.SessionID) (bool, error) {
	if err := s.settle(ctx); err != nil {
		return false, err
	}
	return s.SQLCryptoStore.IsOutboundGroupSessionShared(ctx, user, key, session)
}

// ValidateMessageIndex tells repetitions by the sender of the event, as keys are kept: who gives the key of another's session and repeats what that one wrote must
// not be read in his place.
func (s *keyStore) ValidateMessageIndex(ctx context.Context, session id.SessionID, ev id.EventID, index uint, timestamp int64) (ok bool, err error) {
	o := openingOf(ctx)
	if o == nil {
		return false, errBackground
	}
	err = s.write(ctx, func(ctx context.Context) error {
		ok, err = store.TxOf(ctx).MessageRead(string(session), index, string(o.sender), string(ev), timestamp)
		return err
	})
	return ok, err
}

// FindDeviceByKey keeps the device for an [opening] and says that it is not known: mautrix would look for its trust, and
// perhaps ask the homeserver, in the middle of a commit.
func (s *keyStore) FindDeviceByKey(ctx context.Context, user id.UserID, key id.IdentityKey) (*id.Device, error) {
	o := openingOf(ctx)
	if o == nil {
		return s.SQLCryptoStore.FindDeviceByKey(ctx, user, key)
	}
	signing := id.SigningKey("")
	if o.session != nil {
		signing = o.session.SigningKey
	}
	device, err := s.deviceWith(ctx, user, key, signing)
	o.device = device
	return nil, err
}

func (s *keyStore) PutDevice(ctx context.Context, user id.UserID, device *id.Device) error {
	if wrong := wellFormed(device); wrong != "" {
		return fmt.Errorf("%w: device %.300q of %s: %s", ErrCorrupt, device.DeviceID, user, wrong)
	}
	return s.write(ctx, func(ctx context.Context) error { return s.putDevice(ctx, user, device) })
}

// putDevice is mautrix's, which would leave an ed25519 key as it was. It runs in a job.
func (s *keyStore) putDevice(ctx context.Context, user id.UserID, device *id.Device) error {
	if err := store.TxOf(ctx).ReplaceDevice(string(user), string(device.DeviceID), string(device.IdentityKey), string(device.SigningKey)); err != nil {
		return err
	}
	return s.SQLCryptoStore.PutDevice(ctx, user, device)
}

// PutDevices is mautrix's without the transaction that it begins, which cannot be had. Devices that are none are taken out of what is given: whoever joins a
// room has the bridge read what he calls his devices, and must not stop it from speaking there.
func (s *keyStore) PutDevices(ctx context.Context, user id.UserID, devices map[id.DeviceID]*id.Device) error {
	for name, device := range devices {
		if wrong := wellFormed(device); wrong != "" {
			s.c.log.Warn().Stringer("user", user).Str("device", fmt.Sprintf("%.300q", name)).Str("wrong", wrong).Msg("A device is left out")
			delete(devices, name)
		}
		if device.Name == onlyOfMessage {
			device.Name = string(name)
		}
	}
	return s.hearLast(ctx, user, len(devices)+1, func(ctx context.Context) error {
		devices, err := s.believed(ctx, user, devices)
		if err != nil {
			return err
		}
		if err := s.dropIfOther(ctx, user, devices); err != nil {
			return err
		}
		if err := store.TxOf(ctx).ForgetDevices(string(user)); err != nil {
			return err
		}
		for _, device := range devices {
			if err := s.putDevice(ctx, user, device); err != nil {
				return err
			}
		}
		if !s.c.as.Owns(user) {
			if err := store.TxOf(ctx).DeleteGoneDevices(string(user), s.c.mostGone); err != nil {
				return err
			}
		}
		if op := operationOf(ctx); op != nil { // they may have changed since they were asked for
			return store.TxOf(ctx).KeepDevicesOutdated(string(user), op.began)
		}
		return nil
	})
}

func (s *keyStore) MarkTrackedUsersOutdated(ctx context.Context, users []id.UserID) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.MarkTrackedUsersOutdated(ctx, users) })
}

func (s *keyStore) PutCrossSigningKey(ctx context.Context, user id.UserID, usage id.CrossSigningUsage, key id.Ed25519) error {
	if !slices.Contains([]id.CrossSigningUsage{id.XSUsageMaster, id.XSUsageSelfSigning, id.XSUsageUserSigning}, usage) || !isKey(key) {
		s.c.log.Warn().Stringer("user", user).Str("usage", fmt.Sprintf("%.50q", usage)).Msg("A cross-signing key that is none is left out")
		return nil
	}
	return s.hear(ctx, user, 1, func(ctx context.Context) error {
		before, err := s.GetCrossSigningKeys(ctx, user)
		if err == nil {
			err = s.SQLCryptoStore.PutCrossSigningKey(ctx, user, usage, key)
		}
		if err != nil {
			return err
		}
		if before[usage].Key != key && s.c.as.Owns(user) {
			store.TxOf(ctx).AfterCommit(func() { s.c.doubtOwn(user) }) // somebody else may have replaced them
		}
		return s.dropIfTrusted(ctx, user, before[usage].Key != key)
	})
}

func (s *keyStore) ResetMasterKeyTOFU(ctx context.Context, user id.UserID, key id.Ed25519) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.ResetMasterKeyTOFU(ctx, user, key) })
}

func (s *keyStore) PutSignature(ctx context.Context, signed id.UserID, signedKey id.Ed25519, signer id.UserID, signerKey id.Ed25519, signature string) error {
	// What strangers have signed says nothing to the bridge.
	if signer != signed && !s.c.as.Owns(signer) || !isKey(signedKey) || !isKey(signerKey) || !isSignature(signature) {
		return nil
	}
	return s.hear(ctx, signed, 1, func(ctx context.Context) error {
		before, err := s.IsKeySignedBy(ctx, signed, signedKey, signer, signerKey)
		if err == nil {
			err = s.SQLCryptoStore.PutSignature(ctx, signed, signedKey, signer, signerKey, signature)
		}
		if err != nil {
			return err
		}
		counts := false
		if !before {
			counts, err = s.signatureCounts(ctx, signed, signedKey, signer, signerKey)
		}
		if err != nil {
			return err
		}
		return s.dropIfTrusted(ctx, signed, counts)
	})
}

func (s *keyStore) DropSignaturesByKey(ctx context.Context, user id.UserID, key id.Ed25519) (n int64, err error) {
	err = s.hear(ctx, user, 1, func(ctx context.Context) error {
		if n, err = s.SQLCryptoStore.DropSignaturesByKey(ctx, user, key); err != nil {
			return err
		}
		return s.dropIfTrusted(ctx, user, n > 0)
	})
	return n, err
}

func (s *keyStore) PutSecret(ctx context.Context, name id.Secret, value string) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.PutSecret(ctx, name, value) })
}

func (s *keyStore) DeleteSecret(ctx context.Context, name id.Secret) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.DeleteSecret(ctx, name) })
}

// errSync: the devices of the bridge read no /sync by way of this store.
var errSync = errors.New("the crypto store of the bridge keeps no place in /sync")

func (s *keyStore) PutNextBatch(context.Context, string) error             { return errSync }
func (s *keyStore) SaveNextBatch(context.Context, id.UserID, string) error { return errSync }
