//go:build goolm

package crypto

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"
)

// identitySecret holds the cross-signing keys of a user, as JSON of identity. It belongs to the user and not to one of its devices: a new device is
// signed by the same keys.
const identitySecret id.Secret = "trestle.cross_signing"

// secrets keeps what must not be lost: mautrix's store of an account does.
type secrets interface {
	GetSecret(ctx context.Context, name id.Secret) (string, error)
	PutSecret(ctx context.Context, name id.Secret, value string) error
}

// identity is what is kept of a user's cross-signing keys.
type identity struct {
	// Seeds are those of the keys that the homeserver has taken: what the user signs and trusts with.
	Seeds *crypto.CrossSigningSeeds `json:"seeds,omitempty"`
	// Pending are keys that were made and of which it is not known that the homeserver has them.
	Pending *pendingIdentity `json:"pending,omitempty"`
	// Recovery is the ID of the key that they are stored under on the homeserver. While Recovering nobody was shown its recovery key, and what
	// secret storage there is may be replaced.
	Recovery   string `json:"recovery,omitempty"`
	Recovering bool   `json:"recovering,omitempty"`
	// Sure is the doubt (see witness) after which the keys were compared with the homeserver's.
	Sure string `json:"sure,omitempty"`
}

// pendingIdentity are keys under way. Their seeds are stored before anybody hears of the keys, so that after a lost answer or the end of the process the
// same keys are uploaded again, which a homeserver takes for the same request (MSC3967). Until it has them those before stay in use: the approval that
// it wants may never come.
type pendingIdentity struct {
	Seeds crypto.CrossSigningSeeds `json:"seeds"`
	// Replace says that an administrator wants them in place of whatever the homeserver has.
	Replace bool `json:"replace,omitempty"`
}

// crossSigner gives one user its cross-signing keys.
type crossSigner struct {
	mach    *crypto.OlmMachine
	secrets secrets
	// tell is given the address at which somebody must approve that keys are replaced (MSC4312). nil: nobody can.
	tell func(url string)
	// ask says that the homeserver is to be asked whether it has other keys than the store; doubt names the last time that store or homeserver were
	// found to be of an older day.
	ask   bool
	doubt string
	// asked is what the homeserver has of the user, once it was asked.
	asked *mautrix.RespQueryKeys
	// pause is how long to wait before it is tried whether somebody has approved, patience for how long.
	pause, patience time.Duration
	// adopted says that the user has other keys than before.
	adopted bool
}

func (c *crossSigner) read(ctx context.Context) (*identity, error) {
	text, err := c.secrets.GetSecret(ctx, identitySecret)
	if err != nil {
		return nil, fmt.Errorf("read the cross-signing keys: %w", err)
	}
	if text == "" {
		return nil, nil
	}
	known := new(identity)
	if err := json.Unmarshal([]byte(text), known); err != nil {
		return nil, errors.New("read the cross-signing keys: what is stored is not JSON") // err could tell of them
	}
	return known, nil
}

func (c *crossSigner) write(ctx context.Context, known *identity) error {
	text, err := json.Marshal(known)
	if err != nil {
		return fmt.Errorf("store the cross-signing keys: %w", err)
	}
	if err := c.secrets.PutSecret(ctx, identitySecret, string(text)); err != nil {
		return fmt.Errorf("store the cross-signing keys: %w", err)
	}
	return nil
}

// load gives the machine the user's private keys, if the homeserver has taken any. mautrix then signs and trusts with them, without asking the homeserver.
func (c *crossSigner) load(ctx context.Context) (*identity, error) {
	known, err := c.read(ctx)
	if err != nil || known == nil || known.Seeds == nil {
		return known, err
	}
	if err := c.mach.ImportCrossSigningKeys(*known.Seeds); err != nil {
		return nil, fmt.Errorf("use the cross-signing keys that are stored: %w", err)
	}
	return known, nil
}

// ensure makes the user have cross-signing keys, known to the homeserver and to the machine. It does not replace keys that the homeserver has and
// this store has not: that is [ErrOtherIdentity]. Nor does it go on with a reset that has not come to its end, but where the homeserver has the new keys.
//
// The homeserver is asked where the store has none, and otherwise for the bot and once after store or homeserver were put back to an older state: for each ghost
// at each start it would be too much.
func (c *crossSigner) ensure(ctx context.Context) error {
	known, err := c.load(ctx)
	switch {
	case err != nil:
	case known != nil && known.Pending == nil:
		err = c.stillOurs(ctx, known)
	default:
		err = c.publish(ctx, known, false)
	}
	return c.named(err)
}

// reset gives the user new cross-signing keys in place of those that the homeserver has, because an administrator said so. When it fails halfway,
// those that the homeserver has stay in use, and the next reset goes on with the same new ones.
func (c *crossSigner) reset(ctx context.Context) error {
	known, err := c.load(ctx)
	if err == nil {
		err = c.publish(ctx, known, true)
	}
	return c.named(err)
}

func (c *crossSigner) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cross-signing of %s: %w", c.mach.Client.UserID, err)
}

// makePending stores new keys beside those that there are; nil stands for none at all.
func (c *crossSigner) makePending(ctx context.Context, known *identity, replace bool) (*identity, error) {
	if known == nil {
		known = new(identity)
	}
	if known.Pending == nil {
		keys, err := c.mach.GenerateCrossSigningKeys()
		if err != nil {
			return nil, fmt.Errorf("make the keys: %w", err)
		}
		known.Pending = &pendingIdentity{Seeds: keys.Seeds()}
	}
	known.Pending.Replace = known.Pending.Replace || replace
	return known, c.write(ctx, known)
}

// query asks what the homeserver has of the user, once.
func (c *crossSigner) query(ctx context.Context) (*mautrix.RespQueryKeys, error) {
	if c.asked != nil {
		return c.asked, nil
	}
	var err error
	user := c.mach.Client.UserID
	c.asked, err = c.mach.Client.QueryKeys(ctx, &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: {}}})
	if err != nil {
		return nil, fmt.Errorf("ask for the keys that the homeserver has: %w", err)
	}
	return c.asked, nil
}

// checkDevice is [errDeviceTaken] when the homeserver has keys of the device that are not the account's, which must be one whose keys are not known to
// have arrived: whoever knows the device by the old keys would take the new ones for an attack.
func (c *crossSigner) checkDevice(ctx context.Context) error {
	resp, err := c.query(ctx)
	if err != nil {
		return err
	}
	user, device := c.mach.Client.UserID, c.mach.Client.DeviceID
	if there, ok := resp.DeviceKeys[user][device]; ok && there.Keys.GetEd25519(device) != c.mach.GetAccount().SigningKey() {
		return errDeviceTaken
	}
	return nil
}

// published is which cross-signing keys the homeserver has. What it does not have is empty.
func (c *crossSigner) published(ctx context.Context) (*crypto.CrossSigningPublicKeysCache, error) {
	resp, err := c.query(ctx)
	if err != nil {
		return nil, err
	}
	user := c.mach.Client.UserID
	master, self, other := resp.MasterKeys[user], resp.SelfSigningKeys[user], resp.UserSigningKeys[user]
	return &crypto.CrossSigningPublicKeysCache{MasterKey: master.FirstKey(), SelfSigningKey: self.FirstKey(), UserSigningKey: other.FirstKey()}, nil
}

// stillOurs is [ErrOtherIdentity] when the homeserver has other keys, or, where it need not be asked, when others of the bridge have learnt of such.
func (c *crossSigner) stillOurs(ctx context.Context, known *identity) error {
	if c.ask || known.Sure != c.doubt {
		if err := c.stillThere(ctx); err != nil || known.Sure == c.doubt {
			return err
		}
		known.Sure = c.doubt
		return c.write(ctx, known)
	}
	stored, err := c.mach.CryptoStore.GetCrossSigningKeys(ctx, c.mach.Client.UserID)
	if err != nil {
		return fmt.Errorf("read what is known of the user's keys: %w", err)
	}
	if master, ok := stored[id.XSUsageMaster]; ok && master.Key != c.mach.CrossSigningKeys.MasterKey.PublicKey() {
		return ErrOtherIdentity
	}
	return nil
}

// stillThere makes certain that the homeserver has the keys which the machine uses. One that has none was put back to a state from before it took them, and
// is given them again; of three keys it may have taken the first. One that has others is [ErrOtherIdentity].
func (c *crossSigner) stillThere(ctx context.Context) error {
	there, err := c.published(ctx)
	if err != nil {
		return err
	}
	none, ours := crypto.CrossSigningPublicKeysCache{}, *c.mach.CrossSigningKeys.PublicKeys()
	switch {
	case *there == ours:
		return nil
	case *there == none, there.MasterKey == ours.MasterKey:
		return c.upload(ctx, c.mach.CrossSigningKeys)
	}
	return ErrOtherIdentity
}

// publish makes the pending keys those of the user: it uploads them, unless the homeserver has them already because only its answer was lost, or the
// process ended. replace: also where it has others. Otherwise keys that were to replace others are left pending.
func (c *crossSigner) publish(ctx context.Context, known *identity, replace bool) error {
	// The device signs the master key: the next process must sign as the same.
	if err := c.mach.CryptoStore.PutAccount(ctx, c.mach.GetAccount()); err != nil {
		return fmt.Errorf("store the account: %w", err)
	}
	there, err := c.published(ctx)
	if err != nil {
		return err
	}
	none := *there == crypto.CrossSigningPublicKeysCache{}
	if known == nil && !none && !replace {
		return ErrOtherIdentity
	}
	if known, err = c.makePending(ctx, known, replace); err != nil {
		return err
	}
	keys, err := known.Pending.Seeds.Decode()
	if err != nil {
		return errors.New("use the keys that were made: what is stored is no seed")
	}
	ours := *keys.PublicKeys()
	switch {
	case *there == ours:
	case none && known.Seeds == nil, there.MasterKey == ours.MasterKey, replace: // of three keys it may have taken the first
		if err := c.upload(ctx, &keys); err != nil {
			return err
		}
	case known.Seeds != nil:
		return c.stillThere(ctx)
	default:
		return ErrOtherIdentity
	}
	if err := c.remember(ctx, &keys); err != nil {
		return err
	}
	if err := c.write(ctx, &identity{Seeds: &known.Pending.Seeds, Recovering: known.Pending.Replace}); err != nil {
		return err
	}
	c.adopted = true
	if err := c.mach.ImportCrossSigningKeys(known.Pending.Seeds); err != nil {
		return fmt.Errorf("use the keys that were made: %w", err)
	}
	return nil
}

// request makes the keys as the homeserver wants them. They come out the same each time.
func (c *crossSigner) request(keys *crypto.CrossSigningKeysCache) (*mautrix.UploadCrossSigningKeysReq[any], error) {
	user := c.mach.Client.UserID
	key := func(usage id.CrossSigningUsage, public id.Ed25519) mautrix.CrossSigningKeys {
		return mautrix.CrossSigningKeys{UserID: user, Usage: []id.CrossSigningUsage{usage}, Keys: map[id.KeyID]id.Ed25519{id.NewKeyID(id.KeyAlgorithmEd25519, public.String()): public}}
	}
	master := key(id.XSUsageMaster, keys.MasterKey.PublicKey())
	signature, err := c.mach.GetAccount().SignJSON(master)
	if err != nil {
		return nil, fmt.Errorf("sign the master key: %w", err)
	}
	master.Signatures = signatures.NewSingleSignature(user, id.KeyAlgorithmEd25519, c.mach.Client.DeviceID.String(), signature)
	byMaster := [2]mautrix.CrossSigningKeys{key(id.XSUsageSelfSigning, keys.SelfSigningKey.PublicKey()), key(id.XSUsageUserSigning, keys.UserSigningKey.PublicKey())}
	for n := range byMaster {
		if signature, err = keys.MasterKey.SignJSON(byMaster[n]); err != nil {
			return nil, fmt.Errorf("sign with the master key: %w", err)
		}
		byMaster[n].Signatures = signatures.NewSingleSignature(user, id.KeyAlgorithmEd25519, keys.MasterKey.PublicKey().String(), signature)
	}
	return &mautrix.UploadCrossSigningKeysReq[any]{Master: master, SelfSigning: byMaster[0], UserSigning: byMaster[1]}, nil
}

// remember stores the public keys and what signs them, so that all machines of the bridge trust the user's devices without a question.
func (c *crossSigner) remember(ctx context.Context, keys *crypto.CrossSigningKeysCache) error {
	request, err := c.request(keys)
	if err != nil {
		return err
	}
	user, store := c.mach.Client.UserID, c.mach.CryptoStore
	for _, key := range []mautrix.CrossSigningKeys{request.Master, request.SelfSigning, request.UserSigning} {
		if err := store.PutCrossSigningKey(ctx, user, key.Usage[0], key.FirstKey()); err != nil {
			return fmt.Errorf("store a public key: %w", err)
		}
		for keyID, signature := range key.Signatures[user] {
			_, by := keyID.Parse()
			if by == c.mach.Client.DeviceID.String() {
				by = c.mach.GetAccount().SigningKey().String()
			}
			if err := store.PutSignature(ctx, user, key.FirstKey(), user, id.Ed25519(by), signature); err != nil {
				return fmt.Errorf("store a signature: %w", err)
			}
		}
	}
	return nil
}

// signDevice makes the homeserver have the self-signing key's signature of a device whose keys it has. It costs nothing when that was done.
func (c *crossSigner) signDevice(ctx context.Context) error {
	mach := c.mach
	user, signing, self := mach.Client.UserID, mach.GetAccount().SigningKey(), mach.CrossSigningKeys.SelfSigningKey.PublicKey()
	if signed, err := mach.CryptoStore.IsKeySignedBy(ctx, user, signing, user, self); err != nil {
		return c.named(fmt.Errorf("read the device's signatures: %w", err))
	} else if signed {
		return nil
	}
	if err := mach.SignOwnDevice(ctx, mach.OwnIdentity()); err != nil { // it stores the signature, too
		return c.named(fmt.Errorf("sign the device %s: %w", mach.Client.DeviceID, err))
	}
	return nil
}
