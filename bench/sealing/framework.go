//go:build goolm

package main

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// framework is this framework's crypto package, with a homeserver to share its keys over, once for each room.
type framework struct {
	hs     *bridgetest.Homeserver
	store  *store.Store
	as     *appservice.AppService
	crypto *crypto.Crypto
	keys   *dbutil.Database
	alice  *bridgetest.User
}

type nobody struct{}

func (nobody) HandleEvent(context.Context, *appservice.Event) ([]appservice.Effect, error) {
	return nil, nil
}
func (nobody) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

func openFramework(ctx context.Context, dir string) (_ side, err error) {
	f := &framework{}
	defer func() {
		if err != nil {
			_ = f.close()
		}
	}()
	if f.hs, err = bridgetest.StartHomeserver(bridgetest.Options{}); err != nil {
		return nil, err
	}
	if f.store, err = store.Open(ctx, "sqlite:"+filepath.Join(dir, "framework.db"), store.Options{}); err != nil {
		return nil, err
	}
	registration, err := appservice.Generate(appservice.GenerateOptions{
		ID: "bench", URL: "http://127.0.0.1:9", Domain: f.hs.Domain(), SenderLocalpart: "benchbot", GhostPrefix: "bench_",
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "registration.yaml")
	if err = errors.Join(registration.Save(file), f.hs.AddAppService(file)); err != nil {
		return nil, err
	}
	f.as, err = appservice.New(appservice.Config{
		Registration: registration, HomeserverURL: f.hs.URL(), ServerName: f.hs.Domain(), Store: f.store, Handler: nobody{},
	})
	if err != nil {
		return nil, err
	}
	if f.crypto, err = crypto.New(ctx, crypto.Options{Store: f.store, AS: f.as, PickleKey: []byte("pickle")}); err != nil {
		return nil, err
	}
	if f.keys, err = f.store.Foreign(); err != nil {
		return nil, err
	}
	f.alice = f.hs.User("alice")
	return f, f.crypto.Prepare(ctx, f.as.Bot().UserID())
}

func (f *framework) prepare(ctx context.Context, _ int) (id.RoomID, error) {
	room, err := f.alice.CreateRoom(ctx, bridgetest.RoomOptions{Preset: "public_chat"})
	if err == nil {
		_, err = f.alice.SendState(ctx, room, "m.room.encryption", "", map[string]any{"algorithm": id.AlgorithmMegolmV1, "rotation_period_msgs": 10_000})
	}
	if err == nil {
		err = f.as.Bot().EnsureJoined(ctx, room)
	}
	if err == nil {
		err = f.encrypt(ctx, room, content)
	}
	return room, err
}

func (f *framework) encrypt(ctx context.Context, room id.RoomID, content json.RawMessage) error {
	_, err := f.crypto.Seal(ctx, crypto.Sealing{
		Room: room, Machine: f.as.Bot().UserID(), Type: "m.room.message", Content: content,
		Record: func(tx *store.Tx, sealed json.RawMessage) error {
			_, err := tx.Enqueue(&store.Outgoing{Lane: string(room), Op: "message", TxnID: "x", Payload: sealed})
			return err
		},
	})
	return err
}

func (f *framework) count(ctx context.Context) (n int64, err error) {
	err = f.keys.QueryRow(ctx, countMessages).Scan(&n)
	return n, err
}

func (f *framework) close() error {
	var errs []error
	if f.crypto != nil {
		errs = append(errs, f.crypto.Close())
	}
	if f.as != nil {
		errs = append(errs, f.as.Stop(context.Background()))
	}
	if f.store != nil {
		errs = append(errs, f.store.Close())
	}
	if f.hs != nil {
		errs = append(errs, f.hs.Close())
	}
	return errors.Join(errs...)
}
