package bridgetest

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"
)

// postCrossSigning takes an appservice's keys at once (MSC4190). Of a person it takes the first ones, and the same again (MSC3967);
// others need the password.
func (hs *Homeserver) postCrossSigning(c *call) (any, error) {
	var req rawMap
	if err := c.json(&req); err != nil {
		return nil, err
	}
	acc := c.who.account
	given := make(rawMap)
	for _, kind := range crossSigningKinds {
		if key := req[kind+"_key"]; key != nil {
			given[kind] = key
		}
	}
	switch {
	case hs.traits.family == synapse && !acc.differ(given):
		return struct{}{}, nil
	case acc.crossKeys["master"] != nil && c.who.service == nil && acc.differ(given) && !acc.knowsPassword(req["auth"]):
		return hs.interactiveAuth()
	}
	if hs.traits.family == synapse {
		if err := acc.checkCrossKeys(given); err != nil {
			return nil, err
		}
	}
	maps.Copy(acc.crossKeys, given)
	hs.deviceListChanged(acc)
	return struct{}{}, nil
}

// differ tells whether keys are others than the account's; their signatures do not matter.
func (a *account) differ(given rawMap) bool {
	for kind, key := range given {
		if a.crossKeys[kind] == nil || crossKeyName(a.crossKeys[kind]) != crossKeyName(key) {
			return true
		}
	}
	return false
}

// knowsPassword tells whether the authentication of a request is that of the user.
func (a *account) knowsPassword(auth json.RawMessage) bool {
	var is struct{ Type, Password string }
	return json.Unmarshal(auth, &is) == nil && is.Type == "m.login.password" && a.password != "" && is.Password == a.password
}

type crossKey struct {
	User  string            `json:"user_id"`
	Usage []string          `json:"usage"`
	Keys  map[string]string `json:"keys"`
}

// crossKeyName is the public key, by which the key is called.
func crossKeyName(raw json.RawMessage) string {
	var key crossKey
	_ = json.Unmarshal(raw, &key)
	for _, public := range key.Keys {
		return public
	}
	return ""
}

// checkCrossKeys refuses what is not the user's, and what the master key has not signed.
func (a *account) checkCrossKeys(given rawMap) error {
	master := given["master"]
	if master == nil {
		master = a.crossKeys["master"]
	}
	if master == nil {
		return badRequest("M_MISSING_PARAM", "No master key available")
	}
	for _, kind := range crossSigningKinds {
		raw := given[kind]
		if raw == nil {
			continue
		}
		var key crossKey
		if json.Unmarshal(raw, &key) != nil || key.User != a.id || !slices.Contains(key.Usage, kind) || len(key.Keys) != 1 {
			return badRequest("M_INVALID_PARAM", "Invalid %s key", kind)
		}
		if kind != "master" && !signed(raw, a.id, crossKeyName(master), crossKeyName(master)) {
			return badRequest("M_INVALID_SIGNATURE", "Invalid signature on %s key", kind)
		}
	}
	return nil
}

// signed tells whether an object has a user's signature with a key.
func signed(object json.RawMessage, user, name, public string) bool {
	ok, err := signatures.VerifySignatureJSON(object, id.UserID(user), name, id.Ed25519(public))
	return err == nil && ok
}

// crossKeyIDs are the public cross-signing keys, which Synapse counts among the devices when it tells appservices of
// one-time keys.
func (a *account) crossKeyIDs() []string {
	var out []string
	for _, raw := range a.crossKeys {
		if name := crossKeyName(raw); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// withSignatures adds to keys what signatures a reader may see: the owner's, and the reader's own.
func (a *account) withSignatures(keys json.RawMessage, name, reader string) json.RawMessage {
	more := make(map[string]map[string]string)
	for signer, sigs := range a.signatures[name] {
		if signer == a.id || signer == reader {
			more[signer] = sigs
		}
	}
	if len(more) == 0 {
		return keys
	}
	return mergeSignatures(keys, more)
}

func (a *account) addSignature(name, signer, keyID, signature string) {
	if a.signatures[name] == nil {
		a.signatures[name] = make(map[string]map[string]string)
	}
	if a.signatures[name][signer] == nil {
		a.signatures[name][signer] = make(map[string]string)
	}
	a.signatures[name][signer][keyID] = signature
}

type signedObject struct {
	raw        json.RawMessage
	signatures map[string]map[string]string
}

func (o *signedObject) UnmarshalJSON(data []byte) error {
	var fields struct {
		Signatures map[string]map[string]string `json:"signatures"`
	}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	o.raw, o.signatures = slices.Clone(data), fields.Signatures
	return nil
}

// postSignatures takes a user's signatures of their own devices, with the self-signing key, of their own master key, with a
// device's, and of others' master keys, with the user-signing key. What is wrong is named, and the rest is taken.
func (hs *Homeserver) postSignatures(c *call) (any, error) {
	var req map[string]map[string]signedObject
	if err := c.json(&req); err != nil {
		return nil, badRequest("M_INVALID_PARAM", "Invalid parameter")
	}
	failures := make(map[string]map[string]any)
	signer, ownChanged := c.who.account, false
	for user, objects := range req {
		for name, object := range objects {
			err := hs.takeSignature(signer, user, name, &object)
			if err == nil {
				ownChanged = ownChanged || user == signer.id
				continue
			}
			if failures[user] == nil {
				failures[user] = make(map[string]any)
			}
			failures[user][name] = map[string]any{"status": err.status, "errcode": err.code, "message": err.msg}
		}
	}
	if ownChanged {
		hs.deviceListChanged(signer)
	}
	return map[string]any{"failures": failures}, nil
}

func invalidSignature() *refusal { return badRequest("M_INVALID_SIGNATURE", "Invalid signature") }

// takeSignature takes those of one object.
func (hs *Homeserver) takeSignature(signer *account, user, name string, object *signedObject) *refusal {
	with := "self_signing"
	if user != signer.id {
		with = "user_signing"
	}
	key := signer.crossKeys[with]
	if key == nil {
		return notFound("No %s key found for %s", with, signer.id)
	}
	keyID, public := "ed25519:"+crossKeyName(key), crossKeyName(key)
	owner := hs.accounts[user]
	if owner == nil || owner.crossKeys["master"] == nil {
		return notFound("No master key found for %s", user)
	}
	if len(object.signatures[signer.id]) == 0 {
		return invalidSignature()
	}
	stored := owner.crossKeys["master"]
	switch {
	case name == crossKeyName(stored) && user == signer.id:
		return signer.takeDeviceSignatures(name, stored, object)
	case name == crossKeyName(stored):
	case user == signer.id && object.signatures[signer.id][keyID] == "":
		return invalidSignature()
	case user == signer.id && owner.devices[name] != nil && owner.devices[name].keys != nil:
		stored = owner.devices[name].keys
	default:
		return notFound("Unknown device")
	}
	if owner.signatures[name][signer.id][keyID] != "" {
		return nil // which can only be the same
	}
	if err := checkSignature(stored, object, signer.id, public, public); err != nil {
		return err
	}
	owner.addSignature(name, signer.id, keyID, object.signatures[signer.id][keyID])
	return nil
}

// takeDeviceSignatures takes those of a user's own master key, which their devices make.
func (a *account) takeDeviceSignatures(name string, master json.RawMessage, object *signedObject) *refusal {
	for keyID, signature := range object.signatures[a.id] {
		_, deviceID, _ := strings.Cut(keyID, ":")
		var keys struct {
			Keys map[string]string `json:"keys"`
		}
		if d := a.devices[deviceID]; d == nil || json.Unmarshal(d.keys, &keys) != nil || keys.Keys[keyID] == "" {
			return invalidSignature()
		}
		if err := checkSignature(master, object, a.id, deviceID, keys.Keys[keyID]); err != nil {
			return err
		}
		a.addSignature(name, a.id, keyID, signature)
	}
	return nil
}

// checkSignature compares what was signed with what is stored, and checks the signature.
func checkSignature(stored json.RawMessage, object *signedObject, signer, keyName, public string) *refusal {
	if !reflect.DeepEqual(unsignedPart(stored), unsignedPart(object.raw)) {
		return badRequest("M_UNKNOWN", "Key does not match")
	}
	if !signed(object.raw, signer, keyName, public) {
		return invalidSignature()
	}
	return nil
}

func unsignedPart(raw json.RawMessage) map[string]any {
	var out map[string]any
	_ = json.Unmarshal(raw, &out)
	delete(out, "signatures")
	delete(out, "unsigned")
	return out
}

func mergeSignatures(key json.RawMessage, more map[string]map[string]string) json.RawMessage {
	var out map[string]any
	if json.Unmarshal(key, &out) != nil {
		return key
	}
	have, _ := out["signatures"].(map[string]any)
	if have == nil {
		have = make(map[string]any)
	}
	for user, sigs := range more {
		of, _ := have[user].(map[string]any)
		if of == nil {
			of = make(map[string]any)
		}
		for id, sig := range sigs {
			of[id] = sig
		}
		have[user] = of
	}
	out["signatures"] = have
	return mustJSON(out)
}
