package store

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"go.mau.fi/util/dbutil"
)

// What the bridge knew before rooms were read, and pages served, is still known.
func TestOpen_StoreOfAnOlderVersion_KeepsWhatIsInIt(t *testing.T) {
	for version := 1; version < len(upgradeTable()); version++ {
		path := filepath.Join(t.TempDir(), "old.db")
		db, err := sql.Open(sqliteDriver, sqliteDSN(path, false))
		if err != nil {
			t.Fatal(err)
		}
		old, err := dbutil.NewWithDB(db, "sqlite3")
		if err != nil {
			t.Fatal(err)
		}
		old.VersionTable, old.UpgradeTable = versionTable, upgradeTable()[:version]
		if err := old.Upgrade(context.Background()); err != nil {
			t.Fatal(version, err)
		}
		for _, statement := range []string{
			`INSERT INTO ghost (user_id, registered, device_id, device_made, display_name, avatar_url, last_write) VALUES ('@irc_a:x', 1, 'DEVICE', 1, 'Ann', '', 0)`,
			`INSERT INTO member (room, user_id, membership) VALUES ('!r', '@irc_a:x', 'join')`,
			`INSERT INTO room (room, encrypted) VALUES ('!r', 1)`,
			`INSERT INTO setting (key, value) VALUES ('k', 'v')`,
		} {
			if _, err := db.Exec(statement); err != nil {
				t.Fatalf("%d: %s: %v", version, statement, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), "sqlite:"+path, Options{})
		if err != nil {
			t.Fatal(version, err)
		}
		g, err := s.Ghost(t.Context(), "@irc_a:x")
		if err != nil || g.DeviceID != "DEVICE" || !g.DeviceMade || !g.Registered || g.DisplayName != "Ann" {
			t.Errorf("%d: %+v %v", version, g, err)
		}
		if m, err := s.Member(t.Context(), "!r", "@irc_a:x"); err != nil || m != "join" {
			t.Errorf("%d: %q %v", version, m, err)
		}
		if encrypted, known, err := s.Encrypted(t.Context(), "!r"); err != nil || !encrypted || !known {
			t.Errorf("%d: encrypted %v, known %v, %v", version, encrypted, known, err)
		}
		if known, err := s.KnowsRoom(t.Context(), "!r"); err != nil || known {
			t.Errorf("%d: the room was never read: %v %v", version, known, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
