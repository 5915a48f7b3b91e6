//go:build goolm

package crypto_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"

	trestle "github.com/trestle-bridge/trestle/crypto"
)

const crossSigningPath = "/keys/device_signing/upload"

// watchUploads keeps the bodies of uploads of cross-signing keys.
func (s *keySite) watchUploads() func() [][]byte {
	var mu sync.Mutex
	var bodies [][]byte
	s.answer(crossSigningPath, func(_ http.ResponseWriter, body []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, body)
		return false
	})
	return func() [][]byte {
		mu.Lock()
		defer mu.Unlock()
		return bodies
	}
}

// master is the user's master key on the homeserver.
func (s *keySite) master(user id.UserID) id.Ed25519 {
	s.t.Helper()
	key := s.query(s.load(s.client(user, keyDevice)), user).MasterKeys[user]
	return key.FirstKey()
}

func TestL2_FirstUpload_HasNoAuth(t *testing.T) {
	s := newKeySite(t)
	uploads := s.watchUploads()
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	s.prepare(s.load(mach.Client))
	if len(uploads()) != 1 {
		t.Fatalf("%d uploads", len(uploads()))
	}
	var body map[string]json.RawMessage
	mustJSON(t, uploads()[0], &body)
	if _, there := body["auth"]; there || len(body) != 3 {
		t.Errorf("%s", uploads()[0])
	}
	keys := s.query(mach, keyGhost)
	master, self := keys.MasterKeys[keyGhost], keys.SelfSigningKeys[keyGhost]
	if ok, err := signatures.VerifySignatureJSON(self, keyGhost, master.FirstKey().String(), master.FirstKey()); err != nil || !ok {
		t.Errorf("the self-signing key's signature: %t %v", ok, err)
	}
	if ok, err := signatures.VerifySignatureJSON(master, keyGhost, keyDevice.String(), mach.GetAccount().SigningKey()); err != nil || !ok {
		t.Errorf("the master key's signature: %t %v", ok, err)
	}
}

// A homeserver takes exactly the stored keys again without auth (MSC3967), so what is sent again must be the same to the byte.
func TestL3_UploadWhoseAnswerIsLost_IsTheSameKeysAgain(t *testing.T) {
	for name, again := range map[string]bool{"the same process": false, "the next process": true} {
		t.Run(name, func(t *testing.T) {
			s := newKeySite(t)
			uploads := s.watchUploads()
			mach := s.machine(keyGhost, keyDevice)
			s.loseAnswer(crossSigningPath)
			if err := s.signer(mach).Ensure(t.Context()); err == nil {
				t.Fatal("the answer was not lost")
			}
			first := s.master(keyGhost)
			if again {
				mach = s.load(mach.Client)
			}
			s.prepare(mach)
			if got := mach.CrossSigningKeys.MasterKey.PublicKey(); got != first || s.master(keyGhost) != first {
				t.Error("it became another identity")
			}
			if n := len(uploads()); n != 1 {
				t.Errorf("what the homeserver has was uploaded again: %d uploads", n)
			}
		})
	}
}

func TestL1_L3_UploadThatNeverArrives_IsTheSameBytesAgain(t *testing.T) {
	s := newKeySite(t)
	var bodies [][]byte
	remove := s.answer(crossSigningPath, func(w http.ResponseWriter, body []byte) bool {
		bodies = append(bodies, body)
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	mach := s.machine(keyGhost, keyDevice)
	for range 3 {
		if err := s.signer(mach).Ensure(t.Context()); err == nil || !strings.Contains(err.Error(), string(keyGhost)) {
			t.Fatal(err)
		}
		mach = s.load(mach.Client)
	}
	remove()
	s.prepare(mach)
	if len(bodies) != 3 || !bytes.Equal(bodies[0], bodies[1]) || !bytes.Equal(bodies[1], bodies[2]) {
		t.Errorf("%q", bodies)
	}
	if s.master(keyGhost) != mach.CrossSigningKeys.MasterKey.PublicKey() {
		t.Error("another identity")
	}
}

func TestL4_KeysThatAreNotOurs_AreNotReplacedUntilAnAdministratorSaysSo(t *testing.T) {
	s := newKeySite(t)
	s.prepare(s.machine(keyGhost, keyDevice))
	before := s.master(keyGhost)
	if err := s.secretsOf(keyGhost).PutSecret(t.Context(), "trestle.cross_signing", ""); err != nil { // the store has lost them
		t.Fatal(err)
	}
	for range 2 {
		mach := s.load(s.client(keyGhost, keyDevice))
		err := s.signer(mach).Ensure(t.Context())
		if !errors.Is(err, trestle.ErrOtherIdentity) || !strings.Contains(err.Error(), "reset-cross-signing") || !strings.Contains(err.Error(), string(keyGhost)) {
			t.Fatal(err)
		}
	}
	if s.master(keyGhost) != before {
		t.Fatal("they were replaced")
	}
	mach := s.load(s.client(keyGhost, keyDevice))
	if err := s.signer(mach).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.prepare(mach)
	if now := s.master(keyGhost); now == before || now != mach.CrossSigningKeys.MasterKey.PublicKey() {
		t.Errorf("after the reset: %s, before: %s", now, before)
	}
}

func TestL4_SomebodyElseReplacesTheKeys_IsSeenOnceItIsHeardOf(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	other := s.machine(keyGhost, "ANOTHER")
	if err := trestle.NewCrossSigner(other, s.secretsOf("@another:store"), nil, 0).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.signer(s.load(mach.Client)).Ensure(t.Context()); !errors.Is(err, trestle.ErrOtherIdentity) {
		t.Error(err)
	}
}

// A homeserver that was put back to a state from before it took them has none, or the first of three: it is given the same again.
func TestL3_HomeserverHasLostTheKeys_IsGivenTheSameAgain(t *testing.T) {
	for name, left := range map[string][]string{"none": nil, "the first": {"master_keys"}} {
		t.Run(name, func(t *testing.T) {
			s := newKeySite(t)
			mach := s.machine(keyGhost, keyDevice)
			s.prepare(mach)
			before, uploads := s.master(keyGhost), s.watchUploads()
			s.answer("/keys/query", func(w http.ResponseWriter, _ []byte) bool {
				answer := map[string]any{"device_keys": map[string]any{}}
				for _, kind := range left {
					key := mautrix.CrossSigningKeys{UserID: keyGhost, Usage: []id.CrossSigningUsage{id.XSUsageMaster}, Keys: map[id.KeyID]id.Ed25519{id.NewKeyID(id.KeyAlgorithmEd25519, before.String()): before}}
					answer[kind] = map[id.UserID]any{keyGhost: key}
				}
				_ = json.NewEncoder(w).Encode(answer)
				return true
			})
			signer := s.signer(s.load(mach.Client))
			signer.Ask()
			if err := signer.Ensure(t.Context()); err != nil {
				t.Fatal(err)
			}
			if sent := uploads(); len(sent) != 1 || !bytes.Contains(sent[0], []byte(before)) {
				t.Errorf("uploads %q", sent)
			}
		})
	}
}

// After a reset the device must be signed by the new key at once, on the homeserver and in sender_device_keys (I6).
func TestC11_I6_Reset_SignsTheDeviceAnew(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	old := mach.CrossSigningKeys.SelfSigningKey.PublicKey()
	c := s.signer(mach)
	if err := c.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.SignDevice(t.Context()); err != nil {
		t.Fatal(err)
	}
	mach = s.load(mach.Client)
	s.prepare(mach)
	self := mach.CrossSigningKeys.SelfSigningKey.PublicKey()
	keys := s.query(mach, keyGhost).DeviceKeys[keyGhost][keyDevice]
	if ok, err := signatures.VerifySignatureJSON(keys, keyGhost, self.String(), self); err != nil || !ok || self == old {
		t.Errorf("signature: %t %v", ok, err)
	}
	signed, err := mach.CryptoStore.GetSignaturesForKeyBy(t.Context(), keyGhost, mach.GetAccount().SigningKey(), keyGhost)
	if err != nil || signed[self] == "" {
		t.Errorf("%v %v", signed, err)
	}
}

// The homeserver has the new keys, and only the answer is lost: what is asked next is told of them.
func TestL3_ResetWhoseAnswerIsLost_IsRecognised(t *testing.T) {
	for name, next := range map[string]func(c trestle.CrossSigner, ctx context.Context) error{
		"at the next start": trestle.CrossSigner.Ensure, "by the next reset": trestle.CrossSigner.Reset,
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeySite(t)
			mach := s.machine(keyGhost, keyDevice)
			s.prepare(mach)
			before := s.master(keyGhost)
			uploads := s.watchUploads()
			s.loseAnswer(crossSigningPath)
			if err := s.signer(mach).Reset(t.Context()); err == nil {
				t.Fatal("it did not fail")
			}
			wanted := s.master(keyGhost)
			mach = s.load(mach.Client)
			if err := next(s.signer(mach), t.Context()); err != nil {
				t.Fatal(err)
			}
			s.prepare(mach)
			s.prepare(s.load(mach.Client))
			if now := s.master(keyGhost); now != wanted || wanted == before || mach.CrossSigningKeys.MasterKey.PublicKey() != wanted {
				t.Errorf("%s, the homeserver had %s, and before %s", now, wanted, before)
			}
			if n := len(uploads()); n != 1 { // a lost answer is of a request that was seen once, on its way within
				t.Errorf("%d uploads", n)
			}
			if signed, err := mach.CryptoStore.GetSignaturesForKeyBy(t.Context(), keyGhost, mach.GetAccount().SigningKey(), keyGhost); err != nil ||
				signed[mach.CrossSigningKeys.SelfSigningKey.PublicKey()] == "" {
				t.Errorf("the device is not signed anew: %v %v", signed, err)
			}
		})
	}
}

// Nobody approves it, or it never arrives, or the process ends: the homeserver has the old keys, and so the bridge must have them too.
func TestL3_ResetThatTheHomeserverDoesNotTake_LeavesTheOldKeysInUse(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	before := s.master(keyGhost)
	var bodies [][]byte
	remove := s.answer(crossSigningPath, func(w http.ResponseWriter, body []byte) bool {
		bodies = append(bodies, body)
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	for range 2 {
		if err := s.signer(mach).Reset(t.Context()); err == nil {
			t.Fatal("it did not fail")
		}
		if mach.CrossSigningKeys.MasterKey.PublicKey() != before {
			t.Error("this process signs with keys that the homeserver does not have")
		}
		mach = s.load(mach.Client)
		s.prepare(mach)
		if mach.CrossSigningKeys == nil || mach.CrossSigningKeys.MasterKey.PublicKey() != before {
			t.Fatal("the old keys are lost")
		}
	}
	if len(bodies) != 2 || !bytes.Equal(bodies[0], bodies[1]) {
		t.Errorf("%q", bodies)
	}
	remove()
	if err := s.signer(mach).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := s.master(keyGhost); now == before || now != mach.CrossSigningKeys.MasterKey.PublicKey() || !bytes.Contains(bodies[0], []byte(now)) {
		t.Errorf("%s, before %s: not the keys of the first attempt", now, before)
	}
}

// wantsApproval has the homeserver ask for approval, under the stages that are given, until it was tried often enough.
func (s *keySite) wantsApproval(tries int, stages ...string) (bodies func() []string) {
	var mu sync.Mutex
	var got []string
	s.answer(crossSigningPath, func(w http.ResponseWriter, body []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(body))
		if len(got) > tries {
			return false
		}
		answer := map[string]any{"session": "sess", "flows": []any{}, "params": map[string]any{}}
		for _, stage := range stages {
			answer["flows"] = append(answer["flows"].([]any), map[string]any{"stages": []string{stage}})
			answer["params"].(map[string]any)[stage] = map[string]any{"url": "https://account.hs.test/" + stage}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(answer)
		return true
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
}

func TestL5_HomeserverThatWantsApproval_IsAnErrorThatSaysWhatToDo(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.wantsApproval(1000, "m.login.password")
	err := s.signer(mach).Ensure(t.Context())
	if !errors.Is(err, trestle.ErrApproval) || !strings.Contains(err.Error(), "io.element.msc4190") || !strings.Contains(err.Error(), "m.login.password") {
		t.Error(err)
	}
}

func TestL6_L7_L8_ApprovalInABrowser_IsShownWaitedForAndThenNothingButTheSessionIsSent(t *testing.T) {
	for name, c := range map[string]struct {
		stages []string
		url    string
	}{
		"stable":   {[]string{"m.oauth"}, "https://account.hs.test/m.oauth"},
		"unstable": {[]string{"org.matrix.cross_signing_reset"}, "https://account.hs.test/org.matrix.cross_signing_reset"},
		"both":     {[]string{"org.matrix.cross_signing_reset", "m.oauth"}, "https://account.hs.test/m.oauth"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeySite(t)
			mach := s.machine(keyGhost, keyDevice)
			bodies := s.wantsApproval(3, c.stages...)
			var told []string
			signer := trestle.NewCrossSigner(mach, s.secretsOf(keyGhost), func(url string) { told = append(told, url) }, time.Minute)
			if err := signer.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(told) != 1 || told[0] != c.url {
				t.Errorf("told %q", told)
			}
			if len(bodies()) != 4 {
				t.Fatalf("%d tries", len(bodies()))
			}
			for n, body := range bodies() {
				if got := strings.Contains(body, `"auth":{"session":"sess"}`); got != (n > 0) || strings.Contains(body, `"auth"`) != got {
					t.Errorf("try %d: %s", n, body)
				}
			}
			if s.master(keyGhost) != mach.CrossSigningKeys.MasterKey.PublicKey() {
				t.Error("they did not arrive")
			}
		})
	}
}

func TestL9_L10_ApprovalThatDoesNotCome_IsGivenUp(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	bodies := s.wantsApproval(1_000_000, "m.oauth")
	err := trestle.NewCrossSigner(mach, s.secretsOf(keyGhost), func(string) {}, 50*time.Millisecond).Reset(t.Context())
	if !errors.Is(err, trestle.ErrApproval) {
		t.Error(err)
	}
	n := len(bodies())
	time.Sleep(20 * time.Millisecond)
	if len(bodies()) != n || n < 2 {
		t.Errorf("%d tries, and then %d", n, len(bodies()))
	}
	if n > 51 { // each waits a millisecond
		t.Errorf("%d tries in 50 ms", n)
	}
	if trestle.ApprovalPause != 5*time.Second || trestle.ApprovalPatience != 10*time.Minute {
		t.Errorf("it is tried every %s for %s", trestle.ApprovalPause, trestle.ApprovalPatience)
	}
}

func TestSeeds_AreNeverInAnErrorNorInClear(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	if err := s.secretsOf(keyGhost).PutSecret(t.Context(), "trestle.cross_signing", `{"seeds":{"m.cross_signing.master":"SECRETSEED`); err != nil {
		t.Fatal(err)
	}
	err := s.signer(s.load(mach.Client)).Ensure(t.Context())
	if err == nil || strings.Contains(err.Error(), "SECRETSEED") {
		t.Error(err)
	}
	var raw []byte
	if err := s.db.QueryRow(t.Context(), "SELECT secret FROM crypto_secrets WHERE account_id=$1", string(keyGhost)).Scan(&raw); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("SECRETSEED")) {
		t.Error("it is stored in the clear")
	}
}
