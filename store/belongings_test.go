package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// What a bridge has is counted beside it, and is less by each ghost that is forgotten.
func TestBelongings_GhostAfterGhostForgotten_CountWhatIsLeft(t *testing.T) {
	onBothEngines(t, func(t *testing.T, uri string) {
		ctx := context.Background()
		s := storetest.Open(t, uri, store.Options{})
		v, err := store.Visit(ctx, uri)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if user, err := v.AnyGhost(ctx, "@bot:x"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("of nobody, %q is any ghost, %v", user, err)
		}
		err = s.Commit(ctx, s.Epoch(), func(tx *store.Tx) error {
			return errors.Join(
				tx.PutGhost(&store.Ghost{UserID: "@bot:x", Registered: true, DeviceID: "BOT", DeviceMade: true}),
				tx.PutGhost(&store.Ghost{UserID: "@one:x", Registered: true, DeviceID: "ONE"}),
				tx.PutGhost(&store.Ghost{UserID: "@two:x"}),
				tx.SetMember("!a", "@bot:x", "join"), tx.SetMember("!a", "@one:x", "join"), tx.SetMember("!b", "@one:x", "invite"),
				tx.SetMember("!c", "@one:x", "leave"), tx.SetMember("!d", "@alice:x", "join"), // who is none of the bridge's
				tx.PutPortal(&store.Portal{Channel: "#c", Room: "!a"}),
				tx.AddMedia(&store.Media{Server: "x", MediaID: "m", Room: "!a", Event: "$e"}),
			)
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Belongings(ctx)
		if want := (store.Belongings{Ghosts: 3, Devices: 2, Rooms: 2, Stays: 3, Portals: 1, Links: 1}); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if user, err := v.AnyGhost(ctx, "@bot:x"); err != nil || user != "@one:x" {
			t.Errorf("any ghost is %q, %v", user, err)
		}
		stays, err := s.Stays(ctx)
		if err != nil || len(stays) != 2 || len(stays["@one:x"]) != 3 || len(stays["@bot:x"]) != 1 {
			t.Errorf("stays are %v, %v", stays, err)
		}
		if err = s.Commit(ctx, s.Epoch(), func(tx *store.Tx) error { return tx.ForgetGhost("@one:x", stays["@one:x"]) }); err != nil {
			t.Fatal(err)
		}
		got, err = v.Belongings(ctx)
		if want := (store.Belongings{Ghosts: 2, Devices: 1, Rooms: 1, Stays: 1, Portals: 1, Links: 1}); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

// What is removed can be made anew; other tables in a PostgreSQL database stay.
func TestRemove_Database_IsGoneAndCanBeMadeAnew(t *testing.T) {
	onBothEngines(t, func(t *testing.T, uri string) {
		ctx := context.Background()
		s, err := store.Open(ctx, uri, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store.Pragma(t, s, "CREATE TABLE another_program (device_id TEXT)")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 { // again is no error
			if err := store.Remove(ctx, uri); err != nil {
				t.Fatal(err)
			}
		}
		if v, err := store.Visit(ctx, uri); err == nil {
			_ = v.Close()
			t.Error("it is still there")
		}
		s = storetest.Open(t, uri, store.Options{})
		if strings.HasPrefix(uri, "postgres") {
			store.Pragma(t, s, "DROP TABLE another_program")
		}
	})
}

func TestRemove_DatabaseThatIsHeld_StaysAsItIs(t *testing.T) {
	uri := storetest.SQLite(t)
	s := storetest.Open(t, uri, store.Options{})
	if err := store.Remove(context.Background(), uri); !errors.Is(err, store.ErrInUse) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Portals(context.Background()); err != nil {
		t.Error(err)
	}
}
