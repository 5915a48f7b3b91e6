//go:build goolm

package crypto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"
)

// What a homeserver says of a user is what his own server says, which may be anybody's. Each device costs the checking of signatures, rows in the store, and a one-time
// key and an Olm session for each ghost that writes; each signature is checked by itself, and each usage of a key is rows. So too much is cut from the answer before
// anything reads it. It is counted as mautrix reads it, with mautrix's types: encoding/json takes a name in another case as well, and one that comes twice.

const (
	// mostDevices is how many devices of a user are known: as many as a message goes to in one request. Synapse keeps no more than 1000 of a user of another server
	// and calls more a fault.
	mostDevices = maxBatch
	// mostSigned is how many signatures of a key are looked at: a device has its own and its owner's, and another of his while he changes keys. mautrix checks the
	// owner's once more for each.
	mostSigned = 4
	// mostKeys is how many keys a device has, and how many algorithms: two each by now.
	mostKeys = 16
	// mostUsages is for how much a cross-signing key is: each is for one thing.
	mostUsages = 3
	// mostChecked is of how many devices it is found out whether their owner has signed them, where some are to be left out.
	mostChecked = 1000
	// mostSaid is how many bytes are read of one device or key, with those signatures: each check of a signature goes over all of it, and there are up to six. A device of
	// Element, of matrix-sdk-crypto or mautrix has 700 to 1000 with its owner's signature; a key for ML-KEM-768 would be 1600 more.
	mostSaid = 3 << 10
	// mostRaw is the same before signatures are left out. A master key has one of each device that its owner has ever verified.
	mostRaw = 64 << 10
	// mostOfUser is how many bytes are read of all devices of a user: a thousand, as Synapse keeps at most, of 1 KiB. With it a homeserver can have the bridge work for
	// half a second at most at each question about a user.
	mostOfUser = 1 << 20
	// mostOfServer is how many bytes are read of all devices of a server's users at once, and usualOfUser how many more of each of them: thirty devices, where people have
	// ten. A room may have any number of users whom their server makes up, and all that waits in the room waits for the answer.
	mostOfServer = 4 << 20
	usualOfUser  = 32 << 10
	// mostUsers is for how many of its users that is: twice as much is held of an answer, and an int of 32 bits has no more than 2 GiB.
	mostUsers = 16 << 10
)

// mostReadOfServer is how many bytes are read of all users of a server, of whom there are so many in the answer.
func mostReadOfServer(users int) int { return mostOfServer + min(users, mostUsers)*usualOfUser }

// queried is an answer of /keys/query, with the names that mautrix takes.
type queried struct {
	Failures map[string]json.RawMessage    `json:"failures,omitempty"`
	Devices  map[id.UserID]json.RawMessage `json:"device_keys"`
	Master   map[id.UserID]json.RawMessage `json:"master_keys,omitempty"`
	Self     map[id.UserID]json.RawMessage `json:"self_signing_keys,omitempty"`
	User     map[id.UserID]json.RawMessage `json:"user_signing_keys,omitempty"`
}

// queryThrough sends a question about devices, and leaves out of the answer what is too much, and users whom nobody asked for.
func queryThrough(base http.RoundTripper, log *zerolog.Logger, r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return nil, err
	}
	var asked mautrix.ReqQueryKeys
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, fmt.Errorf("a question about devices: %w", err)
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := base.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	said, err := readQueried(log, asked.DeviceKeys, resp.Body, r.Context().Value(answerKey{}) != nil)
	_ = resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read an answer about devices: %w", err)
	}
	if a, ok := r.Context().Value(answerKey{}).(*answer); ok {
		a.failures = said.Failures
	}
	if body, err = cutQueried(log, said); err != nil {
		return nil, fmt.Errorf("cut an answer about devices: %w", err)
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, nil
}

// readQueried reads what is said of those who were asked for. Of whom too much is said nothing is, as if their server had not answered, where the question is about some
// of many; elsewhere it has failed: to who looks whether something is there, no answer says that it is not.
func readQueried(log *zerolog.Logger, asked mautrix.DeviceKeysRequest, body io.Reader, some bool) (said queried, err error) {
	most := map[id.UserID]int{}
	for user := range asked {
		most[user] = mostSentOfUser
	}
	s, err := sift(body, most, "device_keys", "master_keys", "self_signing_keys", "user_signing_keys")
	if err != nil {
		return said, err
	}
	for user := range s.tooMuch {
		if !some {
			return said, fmt.Errorf("%w, about %s", errTooMuch, user)
		}
		log.Warn().Err(errTooMuch).Stringer("user", user).Msg("What a homeserver says of a user's devices is left out. It is asked for again as with a server that does not answer")
	}
	return queried{s.failures, s.sections["device_keys"], s.sections["master_keys"], s.sections["self_signing_keys"], s.sections["user_signing_keys"]}, nil
}

// cutQueried leaves out what is too much.
func cutQueried(log *zerolog.Logger, said queried) ([]byte, error) {
	owners := map[id.UserID]*owner{}
	sections := map[id.CrossSigningUsage]map[id.UserID]json.RawMessage{id.XSUsageMaster: said.Master, id.XSUsageSelfSigning: said.Self, id.XSUsageUserSigning: said.User}
	for usage, keys := range sections {
		for user, raw := range keys {
			if owners[user] == nil {
				owners[user] = &owner{user: user, keys: map[id.KeyID]bool{}}
			}
			owners[user].add(usage, raw)
		}
	}
	for usage, keys := range sections {
		for user, raw := range keys {
			left, wrong := cutKey(raw, owners[user])
			if keys[user] = left; wrong != "" {
				log.Warn().Stringer("user", user).Str("usage", string(usage)).Str("wrong", wrong).Msg("A cross-signing key is left out")
				delete(keys, user)
			}
		}
	}
	mostOf := mostOfEach(said.Devices)
	for user, raw := range said.Devices {
		by := owners[user]
		if by == nil {
			by = &owner{user: user}
		}
		left, err := cutDevices(log, raw, by, mostOf[user])
		if err != nil {
			return nil, err
		}
		if said.Devices[user] = left; left == nil {
			log.Warn().Stringer("user", user).Msg("What a homeserver says of a user's devices cannot be read, and is left out")
			delete(said.Devices, user)
		}
	}
	return json.Marshal(said)
}

// mostOfEach says how many bytes are read of the devices of each user. Where a server says too much those of whom it says most have less, all the same, and never less than
// usualOfUser.
func mostOfEach(devices map[id.UserID]json.RawMessage) map[id.UserID]int {
	servers := map[string][]id.UserID{}
	for user := range devices {
		server := user.Homeserver()
		servers[server] = append(servers[server], user)
	}
	most := map[id.UserID]int{}
	for _, users := range servers {
		slices.SortFunc(users, func(a, b id.UserID) int { return len(devices[a]) - len(devices[b]) })
		left := mostReadOfServer(len(users))
		for n, user := range users {
			share := min(mostOfUser, left/(len(users)-n))
			most[user] = share
			left -= min(share, len(devices[user]))
		}
	}
	return most
}

// owner is whose signatures count: those by his cross-signing keys.
type owner struct {
	user id.UserID
	keys map[id.KeyID]bool
	self id.Ed25519 // the self-signing key, if there is one
}

func (o *owner) add(usage id.CrossSigningUsage, raw json.RawMessage) {
	var key mautrix.CrossSigningKeys
	if json.Unmarshal(raw, &key) != nil || len(key.Keys) != 1 {
		return
	}
	for name, public := range key.Keys {
		if o.keys[name] = true; usage == id.XSUsageSelfSigning {
			o.self = public
		}
	}
}

// cutKey gives a cross-signing key with no more signatures than are looked at, or says what is wrong with it.
func cutKey(raw json.RawMessage, by *owner) (left json.RawMessage, wrong string) {
	var key mautrix.CrossSigningKeys
	switch {
	case len(raw) > mostRaw || isDeep(raw):
		return nil, "it is too long or too deep"
	case json.Unmarshal(raw, &key) != nil:
		return nil, "it is none"
	case len(key.Keys) != 1:
		return nil, "it is not one key"
	case len(key.Usage) > mostUsages:
		return nil, "it is for too much"
	}
	left = raw
	if fewer, ok := cutSignatures(key.Signatures, by, ""); ok {
		key.Signatures = fewer
		var err error
		if left, err = json.Marshal(key); err != nil {
			return nil, "it is none"
		}
	}
	if len(left) > mostSaid {
		return nil, "it is too long"
	}
	return left, ""
}

// cutDevices gives a user's devices, but those that are none and those that are too many, or nothing if they cannot be read.
func cutDevices(log *zerolog.Logger, raw json.RawMessage, by *owner, most int) (json.RawMessage, error) {
	var devices map[id.DeviceID]json.RawMessage
	if json.Unmarshal(raw, &devices) != nil {
		return nil, nil
	}
	bad := map[string]id.DeviceID{} // one of each kind, for the log
	sound := map[id.DeviceID]*mautrix.DeviceKeys{}
	few, more := by.few(devices, most)
	for _, name := range more {
		bad["of its user's devices too much is said"] = name
		delete(devices, name)
	}
	for _, name := range few {
		left, device, wrong := cutDevice(name, devices[name], by)
		if wrong != "" {
			bad[wrong] = name
			delete(devices, name)
			continue
		}
		devices[name], sound[name] = left, device
	}
	for wrong, name := range bad {
		log.Warn().Stringer("user", by.user).Str("device", fmt.Sprintf("%.300q", name)).Str("wrong", wrong).Msg("A device is left out, and others that are like it")
	}
	if len(sound) > mostDevices {
		log.Warn().Stringer("user", by.user).Int("devices", len(sound)).Int("most", mostDevices).Msg("A user has too many devices; those that he has not signed are left out first")
		left := map[id.DeviceID]json.RawMessage{}
		for _, name := range by.first(sound)[:mostDevices] {
			left[name] = devices[name]
		}
		devices = left
	}
	return json.Marshal(devices)
}

// few gives the devices of which no more than that is read, before any of it is: those that may be signed by their owner first, and of these the short ones.
func (o *owner) few(devices map[id.DeviceID]json.RawMessage, most int) (few, more []id.DeviceID) {
	all := 0
	for _, raw := range devices {
		all += len(raw)
	}
	few = slices.Sorted(maps.Keys(devices))
	if all <= most {
		return few, nil
	}
	unsigned := map[id.DeviceID]bool{}
	for name, raw := range devices {
		unsigned[name] = !bytes.Contains(raw, []byte(o.self))
	}
	slices.SortStableFunc(few, func(a, b id.DeviceID) int {
		if unsigned[a] != unsigned[b] {
			if unsigned[b] {
				return -1
			}
			return 1
		}
		return len(devices[a]) - len(devices[b])
	})
	read := 0
	for n, name := range few {
		if read += len(devices[name]); read > most {
			return few[:n], few[n:]
		}
	}
	return few, nil
}

// deviceMembers are what mautrix knows of a device.
var deviceMembers = []string{"user_id", "device_id", "algorithms", "keys", "signatures", "dehydrated", "unsigned"}

// cutDevice gives a device with no more signatures than are looked at, or says what is wrong with it.
func cutDevice(name id.DeviceID, raw json.RawMessage, by *owner) (left json.RawMessage, device *mautrix.DeviceKeys, wrong string) {
	if len(raw) > mostRaw || isDeep(raw) {
		return nil, nil, "it is too long or too deep"
	}
	device = &mautrix.DeviceKeys{}
	if json.Unmarshal(raw, device) != nil {
		return nil, nil, "it is none"
	}
	for member := range device.Extra { // it would be read in the place of what it looks like, and is signed: it cannot be taken out
		if slices.ContainsFunc(deviceMembers, func(known string) bool { return strings.EqualFold(known, member) }) {
			return nil, nil, "it has a member that is spelt as another"
		}
	}
	if len(device.Keys) > mostKeys || len(device.Algorithms) > mostKeys {
		return nil, nil, "it has too many keys or algorithms"
	}
	left = raw
	if fewer, ok := cutSignatures(device.Signatures, by, name); ok {
		device.Signatures = fewer
		var err error
		if left, err = json.Marshal(device); err != nil {
			return nil, nil, "it is none"
		}
	}
	if len(left) > mostSaid {
		return nil, nil, "it is too long"
	}
	return left, device, ""
}

// first gives the devices first that their owner has signed.
func (o *owner) first(devices map[id.DeviceID]*mautrix.DeviceKeys) []id.DeviceID {
	var signed, others []id.DeviceID
	checked := 0
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		by := false
		if _, says := devices[name].Signatures[o.user][id.NewKeyID(id.KeyAlgorithmEd25519, o.self.String())]; says && checked < mostChecked {
			checked++
			by, _ = signatures.VerifySignatureJSON(*devices[name], o.user, o.self.String(), o.self) // not by a pointer: as mautrix does
		}
		if by {
			signed = append(signed, name)
		} else {
			others = append(others, name)
		}
	}
	return append(signed, others...)
}

// cutSignatures leaves some of the signatures of a key, or of a device, those by the device itself and its owner's keys first; not ok when there are not too many.
func cutSignatures(all signatures.Signatures, owner *owner, device id.DeviceID) (fewer signatures.Signatures, ok bool) {
	many := 0
	for _, by := range all {
		many += len(by)
	}
	if many <= mostSigned {
		return nil, false
	}
	left, n := signatures.Signatures{}, 0
	for _, wanted := range []bool{true, false} {
		for user, by := range all {
			for name, signature := range by {
				_, who := name.Parse()
				if n < mostSigned && wanted == (user == owner.user && (owner.keys[name] || device != "" && who == string(device))) {
					if left[user] == nil {
						left[user] = map[id.KeyID]string{}
					}
					left[user][name], n = signature, n+1
				}
			}
		}
	}
	return left, true
}

func isQuery(r *http.Request) bool {
	return r.Body != nil && strings.HasSuffix(r.URL.Path, "/keys/query")
}
