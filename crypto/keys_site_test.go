//go:build goolm

package crypto_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/sql_store_upgrade"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	trestle "github.com/trestle-bridge/trestle/crypto"
	_ "github.com/trestle-bridge/trestle/store" // has the database driver
)

// keySite is a homeserver with a bridge's appservice, and a database for the keys of its ghosts.
type keySite struct {
	t    testing.TB
	hs   *bridgetest.Homeserver
	path string
	db   *dbutil.Database
}

const (
	keyGhost  = id.UserID("@irc_ann:hs.test")
	keyDevice = id.DeviceID("GHOSTDEVICE")
)

func newKeySite(t testing.TB, kind ...bridgetest.Option) *keySite {
	t.Helper()
	s := &keySite{t: t, hs: bridgetest.NewHomeserver(t, kind...), path: filepath.Join(t.TempDir(), "keys.db")}
	err := s.hs.AddRegistration(&bridgetest.Registration{
		ID: "irc", ASToken: "as-secret", HSToken: "hs-secret", SenderLocalpart: "ircbot",
		Namespaces: bridgetest.Namespaces{Users: []bridgetest.Namespace{{Exclusive: true, Regex: `^@irc_.*:hs\.test$`}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.open()
	return s
}

func (s *keySite) open() {
	s.t.Helper()
	var err error
	if s.db, err = dbutil.NewWithDialect(s.path+"?_busy_timeout=5000", testDriver); err != nil {
		s.t.Fatal(err)
	}
	db := s.db
	s.t.Cleanup(func() { _ = db.Close() })
	if err := s.db.Child(sql_store_upgrade.VersionTableName, sql_store_upgrade.Table, nil).Upgrade(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// secretsOf is where a user's cross-signing keys are, whatever its devices.
func (s *keySite) secretsOf(user id.UserID) trestle.Secrets {
	return crypto.NewSQLCryptoStore(s.db, nil, string(user), "", []byte("pickle"))
}

// machine is one process's machine of a ghost's device, which it makes on the homeserver.
func (s *keySite) machine(user id.UserID, device id.DeviceID) *crypto.OlmMachine {
	s.t.Helper()
	cli := s.client(user, "")
	s.request(cli, http.MethodPost, cli.BuildClientURL("v3", "register"), map[string]any{
		"type": "m.login.application_service", "username": user.Localpart(), "inhibit_login": true,
	})
	s.request(cli, http.MethodPut, cli.BuildClientURL("v3", "devices", device), map[string]any{"display_name": "x"})
	return s.load(s.client(user, device))
}

func (s *keySite) load(cli *mautrix.Client) *crypto.OlmMachine {
	s.t.Helper()
	store := crypto.NewSQLCryptoStore(s.db, nil, string(cli.UserID)+"/"+string(cli.DeviceID), cli.DeviceID, []byte("pickle"))
	mach := crypto.NewOlmMachine(cli, nil, store, openRooms{})
	if err := mach.Load(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return mach
}

func (s *keySite) client(user id.UserID, device id.DeviceID) *mautrix.Client {
	s.t.Helper()
	cli, err := mautrix.NewClient(s.hs.URL(), user, "as-secret")
	if err != nil {
		s.t.Fatal(err)
	}
	cli.SetAppServiceUserID, cli.DeviceID, cli.SetAppServiceDeviceID = true, device, device != ""
	cli.Log = zerolog.Nop()
	return cli
}

func (s *keySite) request(cli *mautrix.Client, method, url string, body any) {
	s.t.Helper()
	if _, err := cli.MakeRequest(s.t.Context(), method, url, body, nil); err != nil && !strings.Contains(err.Error(), "M_USER_IN_USE") {
		s.t.Fatal(err)
	}
}

// signer makes the cross-signing keys of the machine's user.
func (s *keySite) signer(mach *crypto.OlmMachine) trestle.CrossSigner {
	return trestle.NewCrossSigner(mach, s.secretsOf(mach.Client.UserID), nil, time.Minute)
}

// prepare does what Prepare does, with the machine's device made.
func (s *keySite) prepare(mach *crypto.OlmMachine) {
	s.t.Helper()
	c := s.signer(mach)
	if err := c.Ensure(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	if err := trestle.ShareKeys(s.t.Context(), mach); err != nil {
		s.t.Fatal(err)
	}
	if err := c.SignDevice(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// left is how many one-time keys the homeserver has of the machine's device.
func (s *keySite) left(mach *crypto.OlmMachine) int {
	s.t.Helper()
	resp, err := mach.Client.UploadKeys(s.t.Context(), &mautrix.ReqUploadKeys{})
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.OneTimeKeyCounts.SignedCurve25519
}

// claim takes a key of the machine's device, as somebody who wants to write to it.
func (s *keySite) claim(mach *crypto.OlmMachine) (keyID id.KeyID, key mautrix.OneTimeKey) {
	s.t.Helper()
	user, device := mach.Client.UserID, mach.Client.DeviceID
	resp, err := mach.Client.ClaimKeys(s.t.Context(), &mautrix.ReqClaimKeys{
		OneTimeKeys: mautrix.OneTimeKeysRequest{user: {device: id.KeyAlgorithmSignedCurve25519}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for keyID, key = range resp.OneTimeKeys[user][device] {
		return keyID, key
	}
	s.t.Fatal("nothing was claimed")
	return
}

// canRead says whether somebody who has claimed the key can write to the machine: whether it has the private half.
func (s *keySite) canRead(mach *crypto.OlmMachine, key mautrix.OneTimeKey) bool {
	s.t.Helper()
	sender := crypto.NewOlmAccount()
	session, err := sender.Internal.NewOutboundSession(mach.GetAccount().IdentityKey(), key.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	_, text, err := session.Encrypt([]byte("hello"))
	if err != nil {
		s.t.Fatal(err)
	}
	inbound, err := mach.GetAccount().Internal.NewInboundSession(string(text))
	if err != nil {
		return false
	}
	plain, err := inbound.Decrypt(string(text), id.OlmMsgTypePreKey)
	if err != nil {
		return false
	}
	if err := mach.GetAccount().Internal.RemoveOneTimeKeys(inbound); err != nil {
		s.t.Fatal(err)
	}
	return string(plain) == "hello"
}

// query is what everybody sees of a user's keys.
func (s *keySite) query(mach *crypto.OlmMachine, user id.UserID) *mautrix.RespQueryKeys {
	s.t.Helper()
	resp, err := mach.Client.QueryKeys(s.t.Context(), &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{user: {}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return resp
}

// answer has the homeserver answer some requests otherwise. The function is given their bodies, and says false to leave them alone.
func (s *keySite) answer(path string, fn func(w http.ResponseWriter, body []byte) bool) (remove func()) {
	return s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, path) || r.Header.Get("Inner") != "" {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			s.t.Error(err)
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		return fn(w, body)
	})
}

// loseAnswer has the next request to a path done, and its answer lost.
func (s *keySite) loseAnswer(path string) {
	var lost atomic.Bool
	s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, path) || r.Header.Get("Inner") != "" {
			return false
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if len(body) <= 2 || lost.Swap(true) { // "{}" is the question how many keys there are
			return false
		}
		inner, err := http.NewRequest(r.Method, s.hs.URL()+r.URL.RequestURI(), strings.NewReader(string(body)))
		if err != nil {
			s.t.Error(err)
			return false
		}
		inner.Header = http.Header{"Authorization": r.Header["Authorization"], "Inner": {"1"}}
		resp, err := http.DefaultClient.Do(inner)
		if err != nil {
			s.t.Error(err)
			return false
		}
		_ = resp.Body.Close()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			s.t.Error(err)
			return true
		}
		_ = conn.Close()
		return true
	})
}

func (s *keySite) count(path string) int {
	return len(s.hs.Requests(func(r bridgetest.Request) bool { return strings.HasSuffix(r.Path, path) }))
}

// openRooms are rooms that are encrypted, and whose history is for members only.
type openRooms struct{}

func (openRooms) IsEncrypted(context.Context, id.RoomID) (bool, error) { return true, nil }
func (openRooms) GetEncryptionEvent(context.Context, id.RoomID) (*event.EncryptionEventContent, error) {
	return &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}, nil
}
func (openRooms) GetHistoryVisibility(context.Context, id.RoomID) (*event.HistoryVisibilityEventContent, error) {
	return nil, nil
}
func (openRooms) FindSharedRooms(context.Context, id.UserID) ([]id.RoomID, error) { return nil, nil }

func mustJSON(t testing.TB, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}
