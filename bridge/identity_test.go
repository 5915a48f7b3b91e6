//go:build goolm

package bridge_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
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

// The database is of a day on which the room was not encrypted yet: nobody tells the bridge again that it is.
func TestEncryption_RoomThatTheDatabaseTakesForPlain_NothingInTheClearIsTaken(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.b.Stop()
	db := must(store.Open(t.Context(), s.b.Config.Database, store.Options{Log: zerolog.Nop()}))(t)
	foreign := must(db.Foreign())(t)
	s.ok(db.Commit(t.Context(), db.Epoch(), func(tx *store.Tx) error {
		_, err := foreign.Exec(tx.Context(t.Context()), `UPDATE room SET encrypted = 0`)
		return err
	}))
	s.ok(db.Close())
	s.b.Start()
	must(s.alice.SendText(s.ctx, s.room, "somebody on the way wrote this"))(t)
	s.keys.Say(s.room, "and this is hers")
	s.arrives("and this is hers")
	for _, m := range s.net.Sent() {
		if m.Text == "somebody on the way wrote this" {
			t.Error("what was in the clear in an encrypted room is on the network")
		}
	}
}
