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
	"maunium.net/go/mautrix/id"
)

// claimed is an answer of /keys/claim, with the names that mautrix takes.
type claimed struct {
	Failures map[string]json.RawMessage    `json:"failures,omitempty"`
	Keys     map[id.UserID]json.RawMessage `json:"one_time_keys"`
}

// claimThrough sends a claim of one-time keys, and leaves out of the answer those of devices that were not asked for, and what is none: the server of a user says what
// it likes of his devices, mautrix takes it that it has asked for all of them, and one key that cannot be read would take all others with it.
func claimThrough(base http.RoundTripper, log *zerolog.Logger, r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return nil, err
	}
	var asked mautrix.ReqClaimKeys
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, fmt.Errorf("a claim of one-time keys: %w", err)
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := base.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	most := map[id.UserID]int{}
	for user, devices := range asked.OneTimeKeys {
		most[user] = (1 + len(devices)) * mostSentOfKeys
	}
	sifted, err := sift(resp.Body, most, "one_time_keys")
	_ = resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("one-time keys that were claimed: %w", err)
	}
	for user := range sifted.tooMuch {
		log.Warn().Err(errTooMuch).Stringer("user", user).Msg("One-time keys that were claimed of a user's devices are left out, as if there were none")
	}
	said := claimed{sifted.failures, sifted.sections["one_time_keys"]}
	for user, raw := range said.Keys {
		var devices map[id.DeviceID]json.RawMessage
		if json.Unmarshal(raw, &devices) != nil {
			delete(said.Keys, user)
			continue
		}
		for device, raw := range devices {
			algorithm, ok := asked.OneTimeKeys[user][device]
			if !ok {
				delete(devices, device)
			} else if devices[device] = oneOf(raw, algorithm); devices[device] == nil {
				delete(devices, device)
			}
		}
		if said.Keys[user], err = json.Marshal(devices); err != nil {
			return nil, err
		}
	}
	if body, err = json.Marshal(said); err != nil {
		return nil, err
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, nil
}

// oneOf gives the first one-time key of a device that has the algorithm and is one, or nothing. mautrix takes any, and checks what it is signed with however long it is.
func oneOf(raw json.RawMessage, algorithm id.KeyAlgorithm) json.RawMessage {
	var keys map[id.KeyID]json.RawMessage
	if json.Unmarshal(raw, &keys) != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		var key mautrix.OneTimeKey
		if of, _ := name.Parse(); of != algorithm || !isName(name) || len(keys[name]) > mostSaid || isDeep(keys[name]) || json.Unmarshal(keys[name], &key) != nil || !isCurveKey(key.Key) {
			continue
		}
		one, err := json.Marshal(map[id.KeyID]json.RawMessage{name: keys[name]})
		if err != nil {
			return nil
		}
		return one
	}
	return nil
}

func isClaim(r *http.Request) bool {
	return r.Body != nil && strings.HasSuffix(r.URL.Path, "/keys/claim")
}
