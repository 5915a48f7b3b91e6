//go:build goolm

package bridge_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// The homeserver has cross-signing keys of a ghost that the database has not, as after a backup was put back. Nothing but an administrator mends that.
func TestEncryption_GhostWhoseIdentityIsLost_HoldsUpNobodyElse(t *testing.T) {
	s := newSealed(t, "ghosts")
	bob, carol := s.bob(), id.UserID("@test_carol:"+s.hs.Domain())
	var master any
	defer s.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.URL.Query().Get("user_id") != string(bob) {
			return false
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"device_keys": map[string]any{string(bob): map[string]any{}}, "master_keys": map[string]any{string(bob): master}})
		return true
	})()
	key := strings.Repeat("A", 43)
	master = mautrix.CrossSigningKeys{UserID: bob, Usage: []id.CrossSigningUsage{id.XSUsageMaster}, Keys: map[id.KeyID]id.Ed25519{id.KeyID("ed25519:" + key): id.Ed25519(key)}}
	s.networkSays("from bob")
	s.ok(s.net.Say(s.ctx, lobby, "carol", "from carol"))
	s.reads(carol, "from carol")
	for {
		letters := must(s.b.DeadLetters(s.ctx, 0))(t)
		if len(letters) == 1 && strings.Contains(letters[0].Cause, "reset-cross-signing") {
			break
		}
		s.ok(s.ctx.Err())
		time.Sleep(20 * time.Millisecond)
	}
	s.nothingPlain()
}
