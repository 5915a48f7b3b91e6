//go:build goolm

package crypto

import (
	"context"
	"time"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// What [keyStore] keeps of Olm sessions.

func (s *keyStore) AddSession(ctx context.Context, key id.SenderKey, o *crypto.OlmSession) error {
	claimed := addressee(ctx, key)
	return s.stage(ctx, func(ctx context.Context) error {
		err := s.SQLCryptoStore.AddSession(ctx, key, o)
		if err == nil && claimed != nil {
			s.claimed.Store(o.ID(), claimed.SigningKey)
			err = store.TxOf(ctx).OlmSessionClaimed(s.AccountID, string(o.ID()), string(claimed.SigningKey))
		}
		return err
	})
}

func (s *keyStore) GetSessions(ctx context.Context, key id.SenderKey) (crypto.OlmSessionList, error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	return s.SQLCryptoStore.GetSessions(ctx, key)
}

// GetLatestSession gives the one to write with, with whom the operation writes to where several name the key.
func (s *keyStore) GetLatestSession(ctx context.Context, key id.SenderKey) (*crypto.OlmSession, error) {
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	signing := id.SigningKey("")
	if device := addressee(ctx, key); device != nil {
		signing = device.SigningKey
	}
	session, err := s.latestWith(ctx, key, signing)
	return toWrite(session), err
}

// HasSession says no when it cannot know, as mautrix's does: the error is the operation's.
func (s *keyStore) HasSession(ctx context.Context, key id.SenderKey) bool {
	session, err := s.GetLatestSession(ctx, key)
	return err == nil && session != nil
}

// UpdateSession writes a step of an Olm session. One that was deleted since it was read, by another operation or because there are too many, is there again
// with what was known of it: the other side goes on with it.
func (s *keyStore) UpdateSession(ctx context.Context, key id.SenderKey, o *crypto.OlmSession) error {
	if broken := brokenOff(o); broken != nil {
		return s.leaveOut(ctx, key, o, broken)
	}
	return s.stage(ctx, func(ctx context.Context) error {
		pickled, err := o.Internal.Pickle(s.PickleKey)
		if err != nil {
			return err
		}
		done, err := s.DB.Exec(ctx, `UPDATE crypto_olm_session SET session = $1, last_encrypted = $2, last_decrypted = $3 WHERE account_id = $4 AND session_id = $5`,
			pickled, o.LastEncryptedTime, o.LastDecryptedTime, s.AccountID, o.ID())
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n > 0 {
			return err
		}
		if err := s.SQLCryptoStore.AddSession(ctx, key, o); err != nil {
			return err
		}
		tx := store.TxOf(ctx)
		if claimed, ok := s.claimed.Load(o.ID()); ok {
			if err := tx.OlmSessionClaimed(s.AccountID, string(o.ID()), string(claimed.(id.SigningKey))); err != nil {
				return err
			}
		}
		return tx.OlmSessionReturned(s.AccountID, string(key), string(o.ID()))
	})
}

func (s *keyStore) DeleteSession(ctx context.Context, key id.SenderKey, o *crypto.OlmSession) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLCryptoStore.DeleteSession(ctx, key, o) })
}

// GetNewestSessionCreationTS is what mautrix asks first when it wants to mend a session in the background, by itself.
func (s *keyStore) GetNewestSessionCreationTS(ctx context.Context, key id.SenderKey) (time.Time, error) {
	if store.TxOf(ctx) == nil && operationOf(ctx) == nil {
		return time.Time{}, errBackground
	}
	return s.SQLCryptoStore.GetNewestSessionCreationTS(ctx, key)
}
