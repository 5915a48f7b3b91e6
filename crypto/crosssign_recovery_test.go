//go:build goolm

package crypto_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	olm "maunium.net/go/mautrix/crypto"

	"github.com/trestle-bridge/trestle/crypto"
)

func TestRecoveryKey_IsShownOnceAndOpensWhatIsStored(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	key, err := w.crypto.RecoveryKey(t.Context(), ghost)
	w.no(err)
	if _, err := w.crypto.RecoveryKey(t.Context(), ghost); !errors.Is(err, crypto.ErrRecoveryKey) {
		t.Error(err)
	}
	client := w.as.Ghost(ghost).Client(w.device(ghost))
	client.DeviceID = "OTHER"
	_, err = client.MakeRequest(t.Context(), http.MethodPut, w.as.Ghost(ghost).Client("").BuildClientURL("v3", "devices", "OTHER"), map[string]any{}, nil)
	w.no(err)
	other := olm.NewOlmMachine(client, nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	w.no(other.Load(t.Context()))
	w.no(other.ShareKeys(t.Context(), 0))
	w.no(other.VerifyWithRecoveryKey(t.Context(), key))
	master := w.keysOf(ghost).MasterKeys[ghost]
	if other.CrossSigningKeys.MasterKey.PublicKey() != master.FirstKey() {
		t.Error("it opens other keys")
	}
	w.no(w.crypto.ResetCrossSigning(t.Context(), ghost))
	if again, err := w.crypto.RecoveryKey(t.Context(), ghost); err != nil || again == key {
		t.Errorf("after a reset: %v", err)
	}
}

func TestKilledWhileARecoveryKeyIsMade_TheNextIsShown(t *testing.T) {
	w := newWorld(t)
	ghost := w.ghost("ann")
	w.no(w.crypto.Prepare(t.Context(), ghost))
	for _, path := range []string{"m.secret_storage.key.", "m.cross_signing.master", "m.secret_storage.default_key"} {
		remove := w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, path) {
				return false
			}
			rw.WriteHeader(http.StatusBadGateway)
			return true
		})
		if _, err := w.crypto.RecoveryKey(t.Context(), ghost); err == nil {
			t.Error(path)
		}
		remove()
	}
	if _, err := w.crypto.RecoveryKey(t.Context(), ghost); err != nil {
		t.Error(err)
	}
}
