//go:build goolm

package crypto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"
)

// What a homeserver says of a user is what his own server says, which may be anybody's. Each device costs the checking of signatures, rows in the store, and a one-time
// key and an Olm session for each ghost that writes; each signature is checked by itself. So too many are cut from the answer before anything reads it.

const (
	// mostDevices is how many devices of a user are known: as many as a message goes to in one request. Synapse keeps no more than 1000 of a user of another server
	// and calls more a fault.
	mostDevices = maxBatch
	// mostSigned is how many signatures of a key are looked at: a device has its own and its owner's.
	mostSigned = 16
	// leastDevice is how many bytes a device has at least in an answer, with two keys and a signature.
	leastDevice = 300
)

type signers map[id.UserID]map[id.KeyID]json.RawMessage

// cutAnswer leaves out what is too much in an answer of /keys/query.
func cutAnswer(log *zerolog.Logger, r *http.Request, resp *http.Response) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/keys/query") || resp.StatusCode != http.StatusOK {
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if len(body) > mostSigned*leastDevice {
		if body, err = cutDevices(log, body); err != nil {
			return nil, err
		}
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, nil
}

func cutDevices(log *zerolog.Logger, body []byte) ([]byte, error) {
	whole := map[string]json.RawMessage{}
	if json.Unmarshal(body, &whole) != nil {
		return body, nil // mautrix says what is wrong with it
	}
	changed := false
	// By user: the names of the cross-signing keys, by which signatures are known that count.
	owners := map[id.UserID]map[id.KeyID]bool{}
	for _, usage := range []string{"master_keys", "self_signing_keys", "user_signing_keys"} {
		keys := map[id.UserID]json.RawMessage{}
		if json.Unmarshal(whole[usage], &keys) != nil {
			continue
		}
		cut := false
		for user, raw := range keys {
			var named struct {
				Keys map[id.KeyID]json.RawMessage `json:"keys"`
			}
			_ = json.Unmarshal(raw, &named)
			if owners[user] == nil {
				owners[user] = map[id.KeyID]bool{}
			}
			if len(named.Keys) == 1 { // as it has to be
				for name := range named.Keys {
					owners[user][name] = true
				}
			}
			if fewer, ok := cutSignatures(raw, owners[user], ""); ok {
				keys[user], cut = fewer, true
				log.Warn().Stringer("user", user).Str("of", usage).Int("most", mostSigned).Msg("A cross-signing key has too many signatures; those by others than its owner are left out first")
			}
		}
		if cut {
			changed = true
			if err := put(whole, usage, keys); err != nil {
				return nil, err
			}
		}
	}
	users := map[id.UserID]map[id.DeviceID]json.RawMessage{}
	if json.Unmarshal(whole["device_keys"], &users) != nil {
		users = nil
	}
	cut := false
	for user, devices := range users {
		if len(devices) > mostDevices {
			log.Warn().Stringer("user", user).Int("devices", len(devices)).Int("most", mostDevices).Msg("A user has too many devices; those that he has not signed are left out first")
			users[user], cut = cutUser(user, devices, owners[user]), true
		}
		for name, raw := range users[user] {
			if fewer, ok := cutSignatures(raw, owners[user], name); ok {
				users[user][name], cut = fewer, true
			}
		}
	}
	if cut {
		changed = true
		if err := put(whole, "device_keys", users); err != nil {
			return nil, err
		}
	}
	if !changed {
		return body, nil
	}
	return json.Marshal(whole)
}

func put(whole map[string]json.RawMessage, name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("cut an answer about devices: %w", err)
	}
	whole[name] = raw
	return nil
}

// cutUser leaves the devices first that bear a signature of their owner's.
func cutUser(user id.UserID, devices map[id.DeviceID]json.RawMessage, owner map[id.KeyID]bool) map[id.DeviceID]json.RawMessage {
	var signed, others []id.DeviceID
	for name, raw := range devices {
		var device struct {
			Signatures signers `json:"signatures"`
		}
		_ = json.Unmarshal(raw, &device)
		by := false
		for key := range device.Signatures[user] {
			by = by || owner[key]
		}
		if by {
			signed = append(signed, name)
		} else {
			others = append(others, name)
		}
	}
	slices.Sort(signed)
	slices.Sort(others)
	left := map[id.DeviceID]json.RawMessage{}
	for _, name := range append(signed, others...)[:mostDevices] {
		left[name] = devices[name]
	}
	return left
}

// cutSignatures leaves of the signatures of a key, or of a device's keys, some, those by the device itself and its owner's keys first; not ok when there are not too many.
func cutSignatures(raw json.RawMessage, owner map[id.KeyID]bool, device id.DeviceID) (fewer json.RawMessage, ok bool) {
	var key struct {
		Signatures signers `json:"signatures"`
	}
	if len(raw) < mostSigned*86 || json.Unmarshal(raw, &key) != nil {
		return nil, false
	}
	many := 0
	for _, by := range key.Signatures {
		many += len(by)
	}
	if many <= mostSigned {
		return nil, false
	}
	left, n := signers{}, 0
	for _, wanted := range []bool{true, false} {
		for user, by := range key.Signatures {
			for name, signature := range by {
				_, who := name.Parse()
				if n < mostSigned && wanted == (owner[name] || device != "" && who == string(device)) {
					if left[user] == nil {
						left[user] = map[id.KeyID]json.RawMessage{}
					}
					left[user][name], n = signature, n+1
				}
			}
		}
	}
	whole := map[string]json.RawMessage{}
	if json.Unmarshal(raw, &whole) != nil || put(whole, "signatures", left) != nil {
		return nil, false
	}
	fewer, err := json.Marshal(whole)
	return fewer, err == nil
}
