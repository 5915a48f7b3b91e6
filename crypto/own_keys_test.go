//go:build goolm

package crypto_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// Prepare asks nobody once it was done: what another of the bridge's users has learnt has it look again.
func TestL4_SomebodyElseReplacesAGhostsKeys_IsSeenOnceAnotherHasLearntOfIt(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	ann, ben := w.ghost("ann"), w.ghost("ben")
	for _, ghost := range []id.UserID{ann, ben} {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	room := w.room(ann, ben)
	w.session(ben, room) // ann reads there
	mach := olm.NewOlmMachine(w.as.Ghost(ann).Client(w.device(ann)), nil, olm.NewMemoryStore(nil), everythingEncrypted{})
	w.no(mach.Load(t.Context()))
	keys, err := mach.GenerateCrossSigningKeys()
	w.no(err)
	w.no(mach.PublishCrossSigningKeys(t.Context(), keys, nil))
	w.settle()
	w.no(w.crypto.HandleKeys(t.Context(), &appservice.Event{Kind: store.KindDeviceLists, Raw: json.RawMessage(fmt.Sprintf(`{"changed":[%q]}`, ann))}))
	w.no(w.crypto.Prepare(t.Context(), ann)) // before anybody has asked
	w.session(ben, room)
	if err := w.crypto.Prepare(t.Context(), ann); !errors.Is(err, crypto.ErrOtherIdentity) {
		t.Errorf("got %v, want ErrOtherIdentity", err)
	}
	if err := w.crypto.Prepare(t.Context(), ben); err != nil {
		t.Errorf("whose keys are as before: %v", err)
	}
}
