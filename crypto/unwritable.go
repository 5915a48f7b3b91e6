//go:build goolm

package crypto

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/id"
)

// An Olm session is made of what the other side has sent, and one that can be read may be one that cannot be written with: a key for the next step that gives no secret
// is enough. mautrix panics then, in the middle of a room key that is for everybody in the room. So such a session is not kept; and should one be there all the same, its
// device alone gets nothing: it gets another session, as a device does that has none.

// canWrite says what is wrong with a session that cannot be written with. It tries that with a copy.
func canWrite(session olm.Session) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	any := []byte("any")
	pickled, err := session.Pickle(any)
	if err != nil {
		return err
	}
	tried := olm.NewBlankSession()
	if err := tried.Unpickle(pickled, any); err != nil {
		return err
	}
	_, _, err = tried.Encrypt(any)
	return err
}

// writable is a session with which mautrix may write without a panic. What comes of an attempt in vain is an empty message, which does not leave ([batchesOf]), and the
// session is deleted in the place of its step ([keyStore.UpdateSession]).
type writable struct {
	olm.Session
	failed error
}

func (w *writable) Encrypt(plaintext []byte) (typ id.OlmMsgType, body []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			typ, body, w.failed, err = w.EncryptMsgType(), nil, err, nil
		}
	}()
	return w.Session.Encrypt(plaintext)
}

// toWrite makes a session writable, in the memory of the store as well.
func toWrite(session *crypto.OlmSession) *crypto.OlmSession {
	if session != nil {
		if _, ok := session.Internal.(*writable); !ok {
			session.Internal = &writable{Session: session.Internal}
		}
	}
	return session
}

// brokenOff says why a session is of no more use after an attempt to write with it, or nothing.
func brokenOff(session *crypto.OlmSession) error {
	if w, ok := session.Internal.(*writable); ok {
		return w.failed
	}
	return nil
}

// leaveOut deletes a session with which nothing can be written, and says with whom it was.
func (s *keyStore) leaveOut(ctx context.Context, key id.SenderKey, session *crypto.OlmSession, cause error) error {
	log := s.c.log.Warn().Err(cause).Str("account", s.AccountID).Str("curve25519", string(key))
	if device := addressee(ctx, key); device != nil {
		log = log.Stringer("user", device.UserID).Stringer("device", device.DeviceID)
		if op := operationOf(ctx); op != nil {
			op.to.leaveOut(device)
		}
	}
	log.Msg("A device is left out: nothing can be written with its Olm session, which is deleted")
	return s.DeleteSession(ctx, key, session)
}

// emptyOlm is in a message that is none, as mautrix writes it.
var emptyOlm = []byte(`"body":""`)

// errPanic is what comes of a panic in mautrix, or in what it is built on.
var errPanic = errors.New("panic in the encryption")

// survive runs what is mautrix's, and makes an error of a panic: the log says where it was.
func (c *Crypto) survive(run func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Msg("The encryption panicked")
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return run()
}
