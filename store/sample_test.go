package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

var sampleTime = time.Date(2026, 5, 17, 10, 30, 0, 123_000_000, time.UTC)

func sampleGhost() *store.Ghost {
	return &store.Ghost{UserID: "@g:x", Registered: true, DeviceID: "D", DeviceMade: true, DisplayName: "ü\x00", LastWrite: sampleTime}
}

func sampleElement(lane, id string) store.Element {
	return store.Element{Kind: store.KindPDU, Lane: lane, Key: id, Raw: []byte(`{"event_id":"` + id + `"}`)}
}

// writeSample fills a fresh database, and a table with a time column such as mautrix's stores have.
func writeSample(uri string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, uri, store.Options{})
	if err != nil {
		return err
	}
	err = s.Commit(ctx, s.Epoch(), func(tx *store.Tx) error {
		lanes, err := tx.Ingest(&store.Transaction{Received: sampleTime, EncryptedRooms: []string{"!a"},
			Elements: []store.Element{sampleElement("!a", "$1"), sampleElement("!a", "$2"), sampleElement("!b", "$3")}})
		if err != nil {
			return err
		}
		_, err = tx.Enqueue(&store.Outgoing{Lane: "#c", Key: "r", Payload: []byte{0, 255}, NextAt: sampleTime})
		return errors.Join(err, tx.Finish("!a", lanes[0].Refs[0]), tx.Attempt("!a", lanes[0].Refs[1], "x", sampleTime),
			tx.PutGhost(sampleGhost()), tx.PutSetting("s", []byte{1, 0, 2}))
	})
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	db, err := sql.Open(store.SQLiteDriver, store.SQLiteDSN(strings.TrimPrefix(uri, "sqlite:"), false))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err = db.Exec("CREATE TABLE stamp (at timestamp)"); err == nil {
		_, err = db.Exec("INSERT INTO stamp VALUES (?)", sampleTime)
	}
	return err
}

// readSample checks what writeSample wrote.
func readSample(uri string) error {
	if err := readSampleStamp(uri); err != nil {
		return err
	}
	return readSampleStore(uri)
}

func readSampleStamp(uri string) error {
	db, err := sql.Open(store.SQLiteDriver, store.SQLiteDSN(strings.TrimPrefix(uri, "sqlite:"), true))
	if err != nil {
		return err
	}
	defer db.Close()
	var at time.Time
	if err = db.QueryRow("SELECT at FROM stamp").Scan(&at); err != nil {
		return err
	}
	if !at.Equal(sampleTime) {
		return fmt.Errorf("the other driver's %v is read as %v", sampleTime, at)
	}
	return nil
}

func readSampleStore(uri string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, uri, store.Options{Retention: store.Retention{Remote: 100 * 365 * 24 * time.Hour}})
	if err != nil {
		return err
	}
	defer s.Close()
	var lanes []string
	err = s.Backlog(ctx, func(l store.LaneRefs) error {
		e, err := s.Element(ctx, l.Refs[0])
		lanes = append(lanes, fmt.Sprint(l.Lane, " ", e.Key, " ", string(e.Raw), " ", l.Attempts, " ", l.NextAt.UnixMilli(), " ", len(l.Refs)))
		return err
	})
	if err != nil {
		return err
	}
	want := []string{`!a $2 {"event_id":"$2"} 1 ` + fmt.Sprint(sampleTime.UnixMilli()) + " 1", `!b $3 {"event_id":"$3"} 0 -62135596800000 1`}
	if !reflect.DeepEqual(lanes, want) {
		return fmt.Errorf("the backlog is %q, want %q", lanes, want)
	}
	g, err := s.Ghost(ctx, "@g:x")
	if err != nil || !reflect.DeepEqual(g, sampleGhost()) {
		return fmt.Errorf("the ghost is %+v, %w", g, err)
	}
	if v, err := s.Setting(ctx, "s"); err != nil || string(v) != "\x01\x00\x02" {
		return fmt.Errorf("the setting is %q, %w", v, err)
	}
	if encrypted, _, err := s.Encrypted(ctx, "!a"); err != nil || !encrypted {
		return fmt.Errorf("the room is encrypted: %v, %w", encrypted, err)
	}
	o, err := s.Outgoing(ctx, 1)
	if err != nil || o.Key != "r" || !o.NextAt.Equal(sampleTime) || string(o.Payload) != "\x00\xff" {
		return fmt.Errorf("the outbox row is %+v, %w", o, err)
	}
	return s.Commit(ctx, s.Epoch(), func(tx *store.Tx) error {
		lanes, err := tx.Ingest(&store.Transaction{Elements: []store.Element{sampleElement("!a", "$1"), sampleElement("!b", "$3")}})
		if err != nil || len(lanes) > 0 {
			return fmt.Errorf("known events are new: %v, %w", lanes, err)
		}
		fresh, err := tx.Enqueue(&store.Outgoing{Key: "r"})
		if err != nil || fresh {
			return fmt.Errorf("a known remote key is fresh: %v, %w", fresh, err)
		}
		return nil
	})
}
