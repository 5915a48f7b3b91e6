//go:build goolm

package crypto

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// mostSignatures is how many of a message are looked at: a device has one of its owner's, and another while the owner changes keys.
const mostSignatures = 4

// usualGone is how many devices of a user are remembered that are gone, or that only a message names: messages of theirs may come yet. Anybody can make them up.
const usualGone = 100

// onlyOfMessage is for people's name of a device which no homeserver has named yet. Those have one, if only their ID ([keyStore.PutDevices]).
const onlyOfMessage = ""

// rememberSender keeps the device of an Olm message's sender_device_keys, whose own signature was checked, and its other signatures by keys of the same
// user (MSC4147): so the messages of a device that was logged out meanwhile are still known to be its owner's, without a question to the homeserver. It is
// kept as one that is gone, unless the homeserver has named it, and so gets no keys. It runs in a job.
func (l *loaded) rememberSender(ctx context.Context, p *olmPayload) error {
	if p.device == nil {
		return nil
	}
	user, signing := p.Sender, p.Keys.Ed25519
	known, err := l.store.GetDevice(ctx, user, p.device.DeviceID)
	if err != nil {
		return fmt.Errorf("read the sender's device: %w", err)
	}
	if known == nil {
		device := &id.Device{UserID: user, DeviceID: p.device.DeviceID, IdentityKey: p.senderKey, SigningKey: signing, Deleted: true, Name: onlyOfMessage}
		if err := l.store.PutDevice(ctx, user, device); err != nil {
			return fmt.Errorf("store the sender's device: %w", err)
		}
		if !l.store.c.as.Owns(user) {
			if err := store.TxOf(ctx).DeleteGoneDevices(string(user), l.store.c.mostGone); err != nil {
				return err
			}
		}
	}
	if err := store.TxOf(ctx).ForgetSignatures(string(user), string(signing)); err != nil {
		return err
	}
	tried, by := 0, p.device.Signatures[user]
	for _, keyID := range slices.Sorted(maps.Keys(by)) {
		signature := by[keyID]
		algorithm, signer := keyID.Parse()
		if algorithm != id.KeyAlgorithmEd25519 || signer == string(p.device.DeviceID) || !isKey(signer) || !isSignature(signature) {
			continue
		}
		if tried++; tried > mostSignatures {
			break // a bad one costs as much as a good one, and all commits wait meanwhile
		}
		// Whether it is the user's self-signing key is looked at when the device is to be trusted.
		if ok, err := signatures.VerifySignatureJSON(p.DeviceKeys, user, signer, id.Ed25519(signer)); err != nil || !ok {
			continue
		}
		if err := l.store.PutSignature(ctx, user, signing, user, id.Ed25519(signer), signature); err != nil {
			return fmt.Errorf("store a signature of the sender's device: %w", err)
		}
	}
	return nil
}
