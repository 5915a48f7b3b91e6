//go:build goolm

package bridge_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/olmclient"
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

// plainWithGhostAlone restarts the bridge with a room that is not encrypted yet, of alice and a ghost without keys.
func (s *sealed) plainWithGhostAlone(name string) id.RoomID {
	s.Helper()
	ghost := id.NewUserID("test_"+name, s.hs.Domain())
	s.b.Stop()
	room := must(s.alice.CreateRoom(s.ctx, bridgetest.RoomOptions{Invite: []id.UserID{ghost}}))(s.T)
	db := must(store.Open(s.ctx, s.b.Config.Database, store.Options{Log: zerolog.Nop()}))(s.T)
	s.ok(db.Commit(s.ctx, db.Epoch(), func(tx *store.Tx) error {
		return tx.PutPortal(&store.Portal{Channel: name, Room: string(room), Source: "command"})
	}))
	s.ok(db.Close())
	s.b.Start()
	s.ok(s.net.Say(s.ctx, name, name, "between us"))
	s.keys.WaitFor("the ghost's message", func(ev *olmclient.Event) bool {
		return ev.Room == room && ev.Sender == ghost && ev.Content["body"] == "between us"
	})
	return room
}

func (s *sealed) encrypts(room id.RoomID) {
	s.Helper()
	s.ok(s.alice.EnableEncryption(s.ctx, room))
	s.keys.WaitFor("the encryption", func(ev *olmclient.Event) bool { return ev.Room == room && ev.Type == "m.room.encryption" })
}

// Nor does it hold up the room that the ghost reads: what cannot be read there is told as anywhere else.
func TestEncryption_ReaderWhoseIdentityIsLost_TheRoomGoesOn(t *testing.T) {
	s := newSealed(t, "ghosts", func(cfg *bridge.Config) {
		cfg.Encryption.Hold, cfg.Encryption.Patience = 10*time.Millisecond, 300*time.Millisecond
	})
	dan := id.UserID("@test_dan:" + s.hs.Domain())
	key := strings.Repeat("A", 43)
	master := mautrix.CrossSigningKeys{UserID: dan, Usage: []id.CrossSigningUsage{id.XSUsageMaster}, Keys: map[id.KeyID]id.Ed25519{id.KeyID("ed25519:" + key): id.Ed25519(key)}}
	defer s.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || r.URL.Query().Get("user_id") != string(dan) {
			return false
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"device_keys": map[string]any{string(dan): map[string]any{}}, "master_keys": map[string]any{string(dan): master}})
		return true
	})()
	direct := s.plainWithGhostAlone("dan")
	s.encrypts(direct)
	s.keys.Say(direct, "nobody reads this")
	for told := false; !told; time.Sleep(20 * time.Millisecond) {
		s.ok(s.ctx.Err())
		letters := must(s.b.DeadLetters(s.ctx, 0))(t)
		told = slices.ContainsFunc(letters, func(l store.DeadLetter) bool {
			return l.Kind == "pdu" && strings.Contains(string(l.Body), string(direct))
		})
	}
}

// A ghost that came into a room while the mode was off has no keys, and would get some only when it speaks.
func TestEncryption_ModeOfARoomWithAGhostAloneChanges_WhatIsWrittenNextIsRead(t *testing.T) {
	s := newSealed(t, "ghosts", func(cfg *bridge.Config) {
		cfg.Encryption.Hold = 10 * time.Millisecond
	})
	s.b.Config.Encryption.Mode = "off"
	direct := s.plainWithGhostAlone("dan")
	s.encrypts(direct)
	s.keys.WaitFor("the sentence", func(ev *olmclient.Event) bool {
		body, _ := ev.Content["body"].(string)
		return ev.Room == direct && strings.HasPrefix(body, "This room is encrypted")
	})
	s.b.Stop()
	s.b.Config.Encryption.Mode = "ghosts"
	s.b.Start()
	for n := 0; ; n++ {
		s.keys.Say(direct, fmt.Sprint("can you read this? ", n))
		for _, m := range s.net.Sent() {
			if m.Channel == "dan" && strings.HasPrefix(m.Text, "can you read this?") {
				return
			}
		}
		s.ok(s.ctx.Err())
		time.Sleep(100 * time.Millisecond)
	}
}
