//go:build goolm

package crypto_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/internal/killat"
	"github.com/trestle-bridge/trestle/store"
)

// preparerVariable holds, in the environment of a child process, where it is to prepare the ghost.
const preparerVariable = "TRESTLE_TEST_PREPARER"

type preparation struct {
	Path, Homeserver string
	Reset            bool
}

func preparerRegistration() *appservice.Registration {
	return &appservice.Registration{
		ID: "irc", ASToken: "as-secret", HSToken: "hs-secret", SenderLocalpart: "ircbot", MSC4190: true, DeviceManagement: true,
		Namespaces: appservice.Namespaces{Users: []appservice.Namespace{{Exclusive: true, Regex: `^@irc_.*:hs\.test$`}}},
	}
}

// TestPreparer is no test, but the child process of the one below: it prepares the ghost.
func TestPreparer(t *testing.T) {
	if os.Getenv(preparerVariable) == "" {
		return
	}
	var p preparation
	mustJSON(t, []byte(os.Getenv(preparerVariable)), &p)
	db, err := store.Open(context.Background(), "sqlite:"+p.Path, store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	as, err := appservice.New(appservice.Config{
		Registration: preparerRegistration(), HomeserverURL: p.Homeserver, ServerName: "hs.test", Store: db, Handler: &world{}, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := crypto.New(context.Background(), crypto.Options{Store: db, AS: as, PickleKey: []byte("pickle")})
	if err != nil {
		t.Fatal(err)
	}
	if err = c.Prepare(context.Background(), keyGhost); err == nil && p.Reset {
		err = c.ResetCrossSigning(context.Background(), keyGhost)
	}
	if err != nil {
		t.Fatal(err)
	}
	killat.Done()
}

// prepareUntil runs a process that prepares the ghost, until it has or is killed. It says which.
func prepareUntil(t *testing.T, hs *bridgetest.Homeserver, what preparation, p killat.Point) (prepared bool) {
	t.Helper()
	what.Homeserver = hs.URL()
	return killat.Test(t, "TestPreparer", preparerVariable, what, hs, p)
}

// A process dies between any two steps of the preparation, and the next one there too. What is stored between two requests is there with the second one:
// before it the step is stored, and after it its answer is not. Whatever they leave, the third ends with one device and one identity, which is whole.
func TestJ2_L3_KilledAnywhere_TheGhostHasOneIdentityAndNeverTwo(t *testing.T) {
	for _, p := range []struct {
		killat.Point
		reset bool
	}{
		{killat.Before("PUT", "/devices/"), false}, {killat.After("PUT", "/devices/"), false},
		{killat.Before("POST", "/keys/query"), false}, {killat.After("POST", "/keys/query"), false},
		{killat.Before("POST", "/keys/device_signing/upload"), false}, {killat.After("POST", "/keys/device_signing/upload"), false},
		{killat.Before("POST", "/keys/upload"), false}, {killat.After("POST", "/keys/upload"), false},
		{killat.Before("POST", "/keys/signatures/upload"), true}, {killat.After("POST", "/keys/signatures/upload"), true},
	} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			hs := bridgetest.NewHomeserver(t)
			reg := preparerRegistration()
			err := hs.AddRegistration(&bridgetest.Registration{
				ID: reg.ID, ASToken: reg.ASToken, HSToken: reg.HSToken, SenderLocalpart: reg.SenderLocalpart, NoLogin: true, DeviceManagement: true,
				Namespaces: bridgetest.Namespaces{Users: []bridgetest.Namespace{{Exclusive: true, Regex: reg.Namespaces.Users[0].Regex}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			job := preparation{Path: filepath.Join(t.TempDir(), "test.db"), Reset: p.reset}
			var master, signing []string // as they were seen
			look := func(who string) *mautrix.RespQueryKeys {
				cli, err := mautrix.NewClient(hs.URL(), hs.User("alice").ID(), hs.User("alice").Token())
				if err != nil {
					t.Fatal(err)
				}
				resp, err := cli.QueryKeys(t.Context(), &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{keyGhost: {}}})
				if err != nil {
					t.Fatal(err)
				}
				if key, there := resp.MasterKeys[keyGhost]; there {
					master = append(master, string(key.FirstKey()))
				}
				for device, keys := range resp.DeviceKeys[keyGhost] {
					signing = append(signing, string(keys.Keys.GetEd25519(device)))
				}
				if n := len(hs.Devices(keyGhost)); n > 1 {
					t.Errorf("%s: %d devices", who, n)
				}
				return resp
			}
			for n := range 2 {
				if prepareUntil(t, hs, job, p.Point) && n == 0 {
					t.Error("the first process was not killed")
				}
				look(fmt.Sprint("process ", n+1))
			}
			job.Reset = false
			if !prepareUntil(t, hs, job, killat.Point{}) {
				t.Fatal("the last process did not end its work")
			}
			resp := look("the last")
			if !p.reset {
				for n := range master {
					if master[n] != master[0] {
						t.Errorf("master keys %v", master)
					}
				}
			}
			for n := range signing {
				if signing[n] != signing[0] {
					t.Errorf("devices' keys %v", signing)
				}
			}
			devices := hs.Devices(keyGhost)
			if len(devices) != 1 || len(resp.DeviceKeys[keyGhost]) != 1 {
				t.Fatalf("devices %v, keys %v", devices, resp.DeviceKeys)
			}
			self := resp.SelfSigningKeys[keyGhost]
			if ok, err := signatures.VerifySignatureJSON(resp.DeviceKeys[keyGhost][devices[0]], keyGhost, self.FirstKey().String(), self.FirstKey()); err != nil || !ok {
				t.Errorf("the device is not signed: %t %v", ok, err)
			}
			cli, err := mautrix.NewClient(hs.URL(), keyGhost, reg.ASToken)
			if err != nil {
				t.Fatal(err)
			}
			cli.SetAppServiceUserID, cli.DeviceID, cli.SetAppServiceDeviceID = true, devices[0], true
			counts, err := cli.UploadKeys(t.Context(), &mautrix.ReqUploadKeys{})
			if err != nil || counts.OneTimeKeyCounts.SignedCurve25519 != crypto.OutstandingKeys {
				t.Errorf("%+v %v", counts, err)
			}
			claimed, err := cli.ClaimKeys(t.Context(), &mautrix.ReqClaimKeys{OneTimeKeys: mautrix.OneTimeKeysRequest{keyGhost: {devices[0]: id.KeyAlgorithmSignedCurve25519}}})
			if err != nil || len(claimed.OneTimeKeys[keyGhost][devices[0]]) != 1 {
				t.Errorf("%+v %v", claimed, err)
			}
		})
	}
}
