//go:build goolm

package crypto_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/goolm/account"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"

	trestle "github.com/trestle-bridge/trestle/crypto"
)

func TestJ2_KeysOfADevice_AreNeverMoreThanHalfOfWhatTheAccountKeeps(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	for range 3 { // also when it is done again and again
		s.prepare(mach)
		if n := s.left(mach); n != trestle.OutstandingKeys || trestle.OutstandingKeys*2 > int(mach.GetAccount().Internal.MaxNumberOfOneTimeKeys()) {
			t.Fatalf("%d keys", n)
		}
	}
	for range 10 {
		s.claim(mach)
	}
	if err := trestle.ShareKeys(t.Context(), mach); err != nil {
		t.Fatal(err)
	}
	if n := s.left(mach); n != trestle.OutstandingKeys {
		t.Errorf("%d keys after ten were claimed", n)
	}
}

func TestJ2_FiveHundredKeysClaimedAndNotUsed_TheNextIsStillUnderstood(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	for n := range 501 {
		_, key := s.claim(mach)
		if n == 500 && !s.canRead(mach, key) {
			t.Error("the account does not have the key's private half any more")
		}
		if n%trestle.FewKeys == trestle.FewKeys-1 {
			if err := trestle.ShareKeys(t.Context(), mach); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestJ2_KeyThatWasClaimed_IsKeptUntilItIsUsedOnce(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	_, key := s.claim(mach)
	for range 2 { // the answers to claims are slower than what was made in their place
		for range trestle.FewKeys - 1 {
			s.claim(mach)
		}
		if err := trestle.ShareKeys(t.Context(), mach); err != nil {
			t.Fatal(err)
		}
	}
	mach = s.load(mach.Client) // another process
	if !s.canRead(mach, key) {
		t.Error("the private half of a key that is under way is gone")
	}
	if s.canRead(mach, key) {
		t.Error("a one-time key was good for two")
	}
}

// The answer to an upload is lost, and the process may end with it. A key that was handed out must not be uploaded again: it would be handed out twice.
func TestJ2_UploadWhoseAnswerIsLost_NeitherDoublesKeysNorMakesMore(t *testing.T) {
	for _, again := range []bool{false, true} {
		s := newKeySite(t)
		mach := s.machine(keyGhost, keyDevice)
		s.loseAnswer("/keys/upload")
		if err := trestle.ShareKeys(t.Context(), mach); err == nil {
			t.Fatal("the answer was not lost")
		}
		signing := mach.GetAccount().SigningKey()
		first, _ := s.claim(mach)
		if again {
			mach = s.load(mach.Client)
		}
		if err := trestle.ShareKeys(t.Context(), mach); err != nil {
			t.Fatal(err)
		}
		if mach.GetAccount().SigningKey() != signing {
			t.Error("it is another identity")
		}
		if n := s.left(mach); n != trestle.OutstandingKeys {
			t.Errorf("%d keys", n)
		}
		for range trestle.OutstandingKeys {
			next, key := s.claim(mach)
			if next == first {
				t.Errorf("%s was handed out twice", next)
			}
			if !s.canRead(mach, key) {
				t.Errorf("%s is unknown", next)
			}
		}
	}
}

func TestJ2_UploadThatNeverArrives_IsRepeatedWithTheSameKeys(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	remove := s.answer("/keys/upload", func(w http.ResponseWriter, _ []byte) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	for range 5 {
		if err := trestle.ShareKeys(t.Context(), mach); err == nil || !strings.Contains(err.Error(), string(keyGhost)) {
			t.Fatal(err)
		}
		mach = s.load(mach.Client)
	}
	remove()
	if err := trestle.ShareKeys(t.Context(), mach); err != nil {
		t.Fatal(err)
	}
	if n := len(mach.GetAccount().Internal.(*account.Account).OTKeys); n != trestle.OutstandingKeys || s.left(mach) != n {
		t.Errorf("%d keys were made, and %d arrived", n, s.left(mach))
	}
}

// A store is put back to an older state. The homeserver hands out keys that it does not have, under IDs that come again.
func TestJ3_RestoredStore_TakesBackTheKeysThatItHasLost(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	backup, err := mach.GetAccount().Internal.Pickle([]byte("pickle"))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		s.claim(mach)
		if err := trestle.ShareKeys(t.Context(), mach); err != nil {
			t.Fatal(err)
		}
	}
	mach.GetAccount().Internal = crypto.NewOlmAccount().Internal
	if err := mach.GetAccount().Internal.Unpickle(backup, []byte("pickle")); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		s.claim(mach)
	}
	if err := trestle.ShareKeys(t.Context(), mach); err != nil {
		t.Fatal(err)
	}
	if n := s.left(mach); n != trestle.OutstandingKeys {
		t.Errorf("%d keys", n)
	}
	for range trestle.OutstandingKeys + 1 { // the last is the fallback key
		if keyID, key := s.claim(mach); !s.canRead(mach, key) {
			t.Errorf("%s is unknown", keyID)
		}
	}
}

func TestJ3_RepairOnDemand_LeavesOnlyKeysThatAreKnown(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	mach.GetAccount().Internal.(*account.Account).OTKeys = nil
	if err := trestle.RepairKeys(t.Context(), mach); err != nil {
		t.Fatal(err)
	}
	for range trestle.OutstandingKeys + 1 {
		if keyID, key := s.claim(mach); !s.canRead(mach, key) {
			t.Errorf("%s is unknown", keyID)
		}
	}
}

func TestJ4_HomeserverThatHasDroppedAllKeys_GetsNewOnes(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	for range trestle.OutstandingKeys {
		s.claim(mach)
	}
	if n := s.left(mach); n != 0 {
		t.Fatal(n)
	}
	if err := trestle.ShareKeys(t.Context(), mach); err != nil {
		t.Fatal(err)
	}
	if n := s.left(mach); n != trestle.OutstandingKeys {
		t.Errorf("%d keys", n)
	}
}

func TestJ5_NoOneTimeKeyLeft_TheFallbackKeyIsHandedOutAndUnderstood(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	for range trestle.OutstandingKeys {
		s.claim(mach)
	}
	keyID, fallback := s.claim(mach)
	if !fallback.Fallback {
		t.Fatalf("%+v", fallback)
	}
	if ok, err := signatures.VerifySignatureJSON(fallback.RawData, keyGhost, keyDevice.String(), mach.GetAccount().SigningKey()); err != nil || !ok {
		t.Errorf("signature: %t %v", ok, err)
	}
	for range 2 {
		if !s.canRead(mach, fallback) {
			t.Error("it is not understood")
		}
	}
	now := time.Now()
	if err := trestle.ReplaceFallback(t.Context(), mach, false, now); err != nil {
		t.Fatal(err)
	}
	// What was said of the old key comes late, in this process and the next.
	for _, m := range []*crypto.OlmMachine{mach, s.load(mach.Client)} {
		if err := trestle.ReplaceFallback(t.Context(), m, false, now.Add(trestle.FallbackFor-time.Minute)); err != nil {
			t.Fatal(err)
		}
		mach = m
	}
	for range s.left(mach) {
		s.claim(mach)
	}
	newID, newer := s.claim(mach)
	if newID == keyID || !newer.Fallback {
		t.Fatalf("%s was not replaced: %+v", keyID, newer)
	}
	if !s.canRead(mach, fallback) || !s.canRead(mach, newer) {
		t.Error("the old key and the new are not both understood")
	}
	if err := trestle.ReplaceFallback(t.Context(), mach, false, now.Add(trestle.FallbackFor)); err != nil {
		t.Fatal(err)
	}
	if third, _ := s.claim(mach); third == newID && s.left(mach) == 0 {
		t.Error("it is not replaced after an hour")
	}
	if !s.canRead(mach, newer) {
		t.Error("the one before is not kept")
	}
}

func TestJ5_FallbackKey_IsUploadedWithTheFirstKeysAndNotAgain(t *testing.T) {
	s := newKeySite(t)
	var bodies []string
	s.answer("/keys/upload", func(_ http.ResponseWriter, body []byte) bool {
		bodies = append(bodies, string(body))
		return false
	})
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	s.prepare(s.load(mach.Client))
	n := 0
	for _, body := range bodies {
		if strings.Contains(body, "fallback_keys") {
			n++
		}
	}
	if n != 1 || len(bodies) != 2 {
		t.Errorf("%d of %d uploads had a fallback key", n, len(bodies))
	}
}

// The first Olm message can be sent as soon as the keys are there, and nobody may see the device without its owner's signature before.
func TestI1_DeviceOnTheHomeserver_IsSignedFromTheBeginning(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.prepare(mach)
	keys := s.query(mach, keyGhost).DeviceKeys[keyGhost][keyDevice]
	self := mach.CrossSigningKeys.SelfSigningKey.PublicKey()
	for name, key := range map[string]id.Ed25519{keyDevice.String(): mach.GetAccount().SigningKey(), self.String(): self} {
		if ok, err := signatures.VerifySignatureJSON(keys, keyGhost, name, key); err != nil || !ok {
			t.Errorf("signature by %s: %t %v", name, ok, err)
		}
	}
	if n := s.count("/keys/signatures/upload"); n != 0 {
		t.Errorf("it was signed afterwards, in %d requests", n)
	}
	if trust, err := mach.ResolveTrustContext(t.Context(), mach.OwnIdentity()); err != nil || trust < id.TrustStateCrossSignedTOFU {
		t.Errorf("%s %v", trust, err)
	}
	if algorithms := keys.Algorithms; !slices.Equal(algorithms, []id.Algorithm{id.AlgorithmMegolmV1, id.AlgorithmOlmV1}) {
		t.Error(algorithms)
	}
}

func TestJ3_RefusalThatIsNotAboutTakenIDs_IsPassedOn(t *testing.T) {
	s := newKeySite(t)
	mach := s.machine(keyGhost, keyDevice)
	s.answer("/keys/upload", func(w http.ResponseWriter, _ []byte) bool {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"errcode":"M_BAD_JSON","error":"no"}`))
		return true
	})
	err := trestle.ShareKeys(t.Context(), mach)
	if !errors.Is(err, mautrix.MBadJSON) || s.count("/keys/claim") != 0 {
		t.Errorf("%v; %d claims", err, s.count("/keys/claim"))
	}
}
