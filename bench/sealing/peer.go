//go:build goolm

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// peer is mautrix-go's machine and store.
type peer struct {
	db   *dbutil.Database
	keys *crypto.SQLCryptoStore
	olm  *crypto.OlmMachine
}

type encrypted struct{}

func (encrypted) IsEncrypted(context.Context, id.RoomID) (bool, error) { return true, nil }
func (encrypted) GetEncryptionEvent(context.Context, id.RoomID) (*event.EncryptionEventContent, error) {
	return &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1, RotationPeriodMessages: 10_000}, nil
}
func (encrypted) GetHistoryVisibility(context.Context, id.RoomID) (*event.HistoryVisibilityEventContent, error) {
	return nil, nil
}
func (encrypted) FindSharedRooms(context.Context, id.UserID) ([]id.RoomID, error) { return nil, nil }

func openPeer(ctx context.Context, dir string) (side, error) {
	driver, dsn := durable(filepath.Join(dir, "peer.db"))
	db, err := dbutil.NewWithDialect(dsn, driver)
	if err != nil {
		return nil, err
	}
	db.RawDB.SetMaxOpenConns(1) // SQLite has one writer: with more connections they stand in each other's way
	p := &peer{db: db, keys: crypto.NewSQLCryptoStore(db, dbutil.NoopLogger, "@peer:bench", "DEVICE", []byte("pickle"))}
	if err := p.keys.DB.Upgrade(ctx); err != nil {
		return nil, err
	}
	client, err := mautrix.NewClient("http://127.0.0.1:9", "@peer:bench", "")
	if err != nil {
		return nil, err
	}
	client.DeviceID = "DEVICE"
	p.olm = crypto.NewOlmMachine(client, nil, p.keys, encrypted{})
	if err := p.olm.Load(ctx); err != nil {
		return nil, err
	}
	return p, p.keys.PutAccount(ctx, p.olm.GetAccount())
}

func (p *peer) prepare(ctx context.Context, i int) (id.RoomID, error) {
	room := id.RoomID(fmt.Sprintf("!room%d:bench", i))
	content, _ := encrypted{}.GetEncryptionEvent(ctx, room)
	session, err := crypto.NewOutboundGroupSession(room, content, nil)
	if err != nil {
		return "", err
	}
	session.Shared = true // with nobody
	return room, p.keys.AddOutboundGroupSession(ctx, session)
}

func (p *peer) encrypt(ctx context.Context, room id.RoomID, content json.RawMessage) error {
	_, err := p.olm.EncryptMegolmEvent(ctx, room, event.EventMessage, content)
	return err
}

func (p *peer) count(ctx context.Context) (n int64, err error) {
	err = p.db.QueryRow(ctx, countMessages).Scan(&n)
	return n, err
}

const countMessages = `SELECT COALESCE(SUM(message_count), 0) FROM crypto_megolm_outbound_session`

func (p *peer) close() error { return p.db.Close() }
