//go:build goolm

package crypto

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/goolm/account"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"
)

// outstandingKeys is how many one-time keys the homeserver is given to hand out: half of what an account keeps, so that the private half of a
// key that was handed out, and whose message is still under way, is kept while as many others are made (MSC4225, appendix).
const outstandingKeys = account.MaxOneTimeKeys / 2

// fewKeys is how many may be left before more are made. Fewer uploads are better than a store of keys that is always full.
const fewKeys = outstandingKeys / 2

// errKeysLost says that the homeserver hands out keys of which this store has no private half: it was put back to an older state, or another
// process has used the same device.
var errKeysLost = errors.New("the homeserver has keys of this device that the store does not have")

// keysUpload is a request of our own: mautrix's has no fallback keys (MSC2732).
type keysUpload struct {
	DeviceKeys   *mautrix.DeviceKeys              `json:"device_keys,omitempty"`
	OneTimeKeys  map[id.KeyID]*mautrix.OneTimeKey `json:"one_time_keys,omitempty"`
	FallbackKeys map[id.KeyID]*mautrix.OneTimeKey `json:"fallback_keys,omitempty"`
}

// ownKeys keeps the public keys of one device on the homeserver. Whoever uses it holds the machine's Olm lock, from before the account was read.
type ownKeys struct {
	mach    *crypto.OlmMachine
	account *account.Account
}

func keysOf(mach *crypto.OlmMachine) (*ownKeys, error) {
	internal, ok := mach.GetAccount().Internal.(*account.Account)
	if !ok {
		return nil, fmt.Errorf("the Olm account is a %T, which has no fallback keys: build with -tags goolm", mach.GetAccount().Internal)
	}
	return &ownKeys{mach, internal}, nil
}

// shareKeys makes the homeserver have the device's identity, enough one-time keys and a fallback key. It asks how many there are first: what the
// bridge was told may be old. It may be called again at any time, and after any failure, also of the process.
func shareKeys(ctx context.Context, mach *crypto.OlmMachine) error {
	k, err := keysOf(mach)
	if err != nil {
		return err
	}
	err = k.share(ctx)
	if errors.Is(err, errKeysLost) {
		err = k.repair(ctx)
	}
	return k.named(err)
}

// repairKeys takes all one-time keys off the homeserver and gives it new ones, for a store that does not have those that it hands out (J3).
func repairKeys(ctx context.Context, mach *crypto.OlmMachine) error {
	k, err := keysOf(mach)
	if err != nil {
		return err
	}
	return k.named(k.repair(ctx))
}

func (k *ownKeys) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("keys of %s's device %s: %w", k.mach.Client.UserID, k.mach.Client.DeviceID, err)
}

func (k *ownKeys) share(ctx context.Context) error {
	shared := k.mach.GetAccount().Shared
	var have int
	if shared || k.account.NextOneTimeKeyID > 0 { // or else this is an account that the homeserver has never heard of
		counts, err := k.upload(ctx, &keysUpload{})
		if err != nil {
			return fmt.Errorf("ask how many are left: %w", err)
		}
		have = counts
	}
	k.settle(have)
	missing := outstandingKeys - have - len(k.unpublished())
	if missing > 0 {
		if err := k.account.GenOneTimeKeys(uint(missing)); err != nil {
			return fmt.Errorf("make one-time keys: %w", err)
		}
	}
	if k.account.NumFallbackKeys == 0 {
		if err := k.account.GenFallbackKey(); err != nil {
			return fmt.Errorf("make a fallback key: %w", err)
		}
	}
	request, err := k.request(!shared)
	if err != nil {
		return err
	}
	if request.DeviceKeys == nil && len(request.OneTimeKeys) == 0 && len(request.FallbackKeys) == 0 {
		return nil
	}
	// First the private halves: a key that is handed out must not be lost with the process.
	if err := k.save(ctx); err != nil {
		return err
	}
	if _, err := k.upload(ctx, request); err != nil {
		if isKeyThere(err) {
			return errKeysLost
		}
		return fmt.Errorf("upload: %w", err)
	}
	if request.DeviceKeys != nil {
		if err := k.remember(ctx, request.DeviceKeys); err != nil {
			return err
		}
	}
	k.account.MarkKeysAsPublished()
	k.mach.GetAccount().Shared = true
	return k.save(ctx)
}

// settle finds out what became of one-time keys that were on their way when the process or the request ended. A key must not be uploaded once
// more after somebody got it. They were made to fill what was missing, and nothing else adds keys: when the homeserver has more than it had then,
// they have arrived.
func (k *ownKeys) settle(have int) {
	doubtful := k.unpublished()
	if len(doubtful) == 0 || have <= outstandingKeys-len(doubtful) {
		return
	}
	for _, n := range doubtful {
		k.account.OTKeys[n].Published = true
	}
}

// unpublished are the indexes of one-time keys of which it is not known that the homeserver has them.
func (k *ownKeys) unpublished() (list []int) {
	for n := range k.account.OTKeys {
		if !k.account.OTKeys[n].Published {
			list = append(list, n)
		}
	}
	return list
}

func (k *ownKeys) request(identity bool) (*keysUpload, error) {
	request := &keysUpload{OneTimeKeys: make(map[id.KeyID]*mautrix.OneTimeKey)}
	var err error
	if identity {
		if request.DeviceKeys, err = k.deviceKeys(); err != nil {
			return nil, err
		}
	}
	for _, n := range k.unpublished() {
		key := k.account.OTKeys[n]
		if request.OneTimeKeys[signedKeyID(key.KeyIDEncoded())], err = k.sign(key.Key.PublicKey.B64Encoded(), false); err != nil {
			return nil, err
		}
	}
	for keyID, key := range k.account.FallbackKeyUnpublished() {
		signed, err := k.sign(key, true)
		if err != nil {
			return nil, err
		}
		request.FallbackKeys = map[id.KeyID]*mautrix.OneTimeKey{signedKeyID(keyID): signed}
	}
	return request, nil
}

func signedKeyID(keyID string) id.KeyID {
	return id.NewKeyID(id.KeyAlgorithmSignedCurve25519, keyID)
}

func (k *ownKeys) sign(key id.Curve25519, fallback bool) (*mautrix.OneTimeKey, error) {
	signed := &mautrix.OneTimeKey{Key: key, Fallback: fallback, IsSigned: true}
	signature, err := k.mach.GetAccount().SignJSON(signed)
	if err != nil {
		return nil, fmt.Errorf("sign a one-time key: %w", err)
	}
	signed.Signatures = signatures.NewSingleSignature(k.mach.Client.UserID, id.KeyAlgorithmEd25519, k.mach.Client.DeviceID.String(), signature)
	return signed, nil
}

// deviceKeys is what /keys/query gives for the device. It is signed by the user's self-signing key from the beginning, so that nobody ever sees a
// device of the bridge that its owner has not signed, and takes it for an insecure one (MSC4153).
func (k *ownKeys) deviceKeys() (*mautrix.DeviceKeys, error) {
	user, device := k.mach.Client.UserID, k.mach.Client.DeviceID
	signing, identity := k.mach.GetAccount().Keys()
	keys := &mautrix.DeviceKeys{
		UserID: user, DeviceID: device,
		Algorithms: []id.Algorithm{id.AlgorithmMegolmV1, id.AlgorithmOlmV1}, // in the order in which mautrix writes sender_device_keys
		Keys: map[id.DeviceKeyID]string{
			id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, device): identity.String(),
			id.NewDeviceKeyID(id.KeyAlgorithmEd25519, device):    signing.String(),
		},
	}
	signature, err := k.mach.GetAccount().SignJSON(keys)
	if err != nil {
		return nil, fmt.Errorf("sign the device: %w", err)
	}
	all := signatures.NewSingleSignature(user, id.KeyAlgorithmEd25519, device.String(), signature)
	if cross := k.mach.CrossSigningKeys; cross != nil {
		bySelf, err := cross.SelfSigningKey.SignJSON(keys)
		if err != nil {
			return nil, fmt.Errorf("sign the device with the self-signing key: %w", err)
		}
		all[user][id.NewKeyID(id.KeyAlgorithmEd25519, cross.SelfSigningKey.PublicKey().String())] = bySelf
	}
	keys.Signatures = all
	return keys, nil
}

// remember stores what the other machines of the bridge, and mautrix for sender_device_keys, look up.
func (k *ownKeys) remember(ctx context.Context, keys *mautrix.DeviceKeys) error {
	user, device := k.mach.Client.UserID, k.mach.Client.DeviceID
	signing, identity := k.mach.GetAccount().Keys()
	err := k.mach.CryptoStore.PutDevice(ctx, user, &id.Device{UserID: user, DeviceID: device, IdentityKey: identity, SigningKey: signing})
	if err != nil {
		return fmt.Errorf("store the device: %w", err)
	}
	for keyID, signature := range keys.Signatures[user] {
		_, by := keyID.Parse()
		if by == device.String() {
			by = signing.String()
		}
		if err := k.mach.CryptoStore.PutSignature(ctx, user, signing, user, id.Ed25519(by), signature); err != nil {
			return fmt.Errorf("store a signature of the device: %w", err)
		}
	}
	return nil
}

func (k *ownKeys) save(ctx context.Context) error {
	if err := k.mach.CryptoStore.PutAccount(ctx, k.mach.GetAccount()); err != nil {
		return fmt.Errorf("store the account: %w", err)
	}
	return nil
}

// upload returns how many one-time keys the homeserver has afterwards.
func (k *ownKeys) upload(ctx context.Context, request *keysUpload) (int, error) {
	var resp mautrix.RespUploadKeys
	cli := k.mach.Client
	_, err := cli.MakeRequest(ctx, http.MethodPost, cli.BuildClientURL("v3", "keys", "upload"), request, &resp)
	return resp.OneTimeKeyCounts.SignedCurve25519, err
}

// isKeyThere recognises Synapse's refusal of another key under an ID that is taken. It has no error code of its own.
func isKeyThere(err error) bool {
	var refusal mautrix.HTTPError
	return errors.As(err, &refusal) && refusal.IsStatus(http.StatusBadRequest) && refusal.RespError != nil &&
		strings.Contains(refusal.RespError.Err, "already exists")
}

// repair claims one key after the other, as anybody may, until there are none: there is no other way to take them back.
func (k *ownKeys) repair(ctx context.Context) error {
	user, device := k.mach.Client.UserID, k.mach.Client.DeviceID
	request := &mautrix.ReqClaimKeys{OneTimeKeys: mautrix.OneTimeKeysRequest{user: {device: id.KeyAlgorithmSignedCurve25519}}}
	have, err := k.upload(ctx, &keysUpload{})
	if err != nil {
		return fmt.Errorf("ask how many are left: %w", err)
	}
	highest := uint32(0)
	for n := 0; have > 0; n++ {
		if n > 2*account.MaxOneTimeKeys+have {
			return errors.New("take back the one-time keys: the homeserver goes on handing them out")
		}
		resp, err := k.mach.Client.ClaimKeys(ctx, request)
		if err != nil {
			return fmt.Errorf("take back the one-time keys: %w", err)
		}
		got := resp.OneTimeKeys[user][device]
		if len(got) == 0 || slices.ContainsFunc(slices.Collect(maps.Values(got)), func(key mautrix.OneTimeKey) bool { return key.Fallback }) {
			break
		}
		for keyID := range got {
			highest = max(highest, numberOf(keyID))
		}
	}
	// IDs that were taken must not be used again for other keys; nor may keys be uploaded again that somebody may have claimed before.
	k.account.NextOneTimeKeyID = max(k.account.NextOneTimeKeyID, highest+1)
	for _, n := range k.unpublished() {
		k.account.OTKeys[n].Published = true
	}
	if err := k.account.GenFallbackKey(); err != nil {
		return fmt.Errorf("make a fallback key: %w", err)
	}
	return k.share(ctx)
}

// numberOf is the number that goolm has made a key's ID of, and 0 for any other ID.
func numberOf(keyID id.KeyID) uint32 {
	_, name := keyID.Parse()
	raw, err := base64.RawStdEncoding.DecodeString(name)
	if err != nil || len(raw) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(raw)
}
