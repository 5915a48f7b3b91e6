//go:build goolm

package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/crypto"
)

// recoveryKey is how one is written: base58 in groups of four.
var recoveryKey = regexp.MustCompile(`\n  (E[A-Za-z1-9]{3}( [A-Za-z1-9]{1,4})+)\n`)

// newEncrypting is a bridge in mode bot, whose configuration is in a file as well.
func newEncrypting(t *testing.T) *removal {
	t.Helper()
	r := newRemoval(t, 0, func(cfg *bridge.Config) { cfg.Encryption.Mode = "bot" })
	f := must(os.OpenFile(r.config, os.O_APPEND|os.O_WRONLY, 0))(t)
	must(f.WriteString("encryption: {mode: bot}\n"))(t)
	r.ok(f.Close())
	return r
}

func TestResetCrossSigning_NewKeysAndTheirRecoveryKey_AreShownOnce(t *testing.T) {
	r := newEncrypting(t)
	reset := func(args ...string) (int, string) {
		return r.command(append([]string{"reset-cross-signing"}, args...)...)
	}
	if status, out := reset("-yes"); status == 0 || !strings.Contains(out, "the bridge runs") {
		t.Errorf("beside a running bridge: %d %s", status, out)
	}
	r.b.Stop()
	if status, out := reset("-user", "bob"); status != 2 || !strings.Contains(out, `-user "bob" is not the ID of a user`) {
		t.Errorf("of what is no user ID: %d %s", status, out)
	}
	if status, out := reset("-yes", "-recovery-key"); status != 2 || !strings.Contains(out, "write one of them") {
		t.Errorf("with both: %d %s", status, out)
	}
	if status, out := reset(); status != 0 || !strings.Contains(out, "Nothing was done") {
		t.Errorf("without -yes: %d %s", status, out)
	}
	if status, out := reset("-yes", "-user", "@alice:"+r.hs.Domain()); status == 0 || !strings.Contains(out, "neither the bridge's bot nor one of its ghosts") {
		t.Errorf("of a person: %d %s", status, out)
	}
	var before string
	for range 2 {
		status, out := reset("-yes")
		key := recoveryKey.FindStringSubmatch(out)
		if status != 0 || key == nil || key[1] == before {
			t.Fatalf("%d %s", status, out)
		}
		before = key[1]
	}
	if status, out := reset("-recovery-key"); status == 0 || strings.Contains(out, before) || !strings.Contains(out, "shown before") {
		t.Errorf("once more: %d %s", status, out)
	}
	r.b.Start() // with the new keys
}

// Whose keys the homeserver has is asked at each start: at the second the words of both (see crypto/witness.go) are the same again.
func TestResetCrossSigning_DatabaseFromBeforeIsPutBack_TheBridgeDoesNotStart(t *testing.T) {
	r := newEncrypting(t)
	r.b.Stop()
	database := strings.TrimPrefix(r.b.Config.Database, "sqlite:")
	before := must(os.ReadFile(database))(t)
	if status, out := r.command("reset-cross-signing", "-yes"); status != 0 {
		t.Fatalf("%d %s", status, out)
	}
	const finding = "FAIL  encryption    the homeserver has cross-signing keys of "
	if _, out := r.command("check"); strings.Contains(out, finding) {
		t.Errorf("before: %s", out)
	}
	r.ok(os.WriteFile(database, before, 0o600))
	if status, out := r.command("check"); status != 1 || !strings.Contains(out, finding+string(r.b.BotID())) || !strings.Contains(out, "reset-cross-signing -yes") {
		t.Errorf("%d %s", status, out)
	}
	for range 2 {
		b := must(bridge.New(r.b.Config, r.net, zerolog.Nop()))(t)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second) // one that starts ends without an error
		err := b.Run(ctx)
		stop()
		if !errors.Is(err, crypto.ErrOtherIdentity) || !strings.Contains(err.Error(), "reset-cross-signing -yes") || !strings.Contains(err.Error(), string(r.b.BotID())) {
			t.Errorf("it starts: %v", err)
		}
	}
	if status, out := r.command("reset-cross-signing", "-yes"); status != 0 || recoveryKey.FindString(out) == "" {
		t.Fatalf("%d %s", status, out)
	}
	r.b.Start()
}

// MSC4312: the homeserver wants somebody to approve it in a browser.
func TestResetCrossSigning_ThatMustBeApproved_SaysWhere(t *testing.T) {
	r := newEncrypting(t)
	r.b.Stop()
	const where = "https://hs.test/approve?action=reset"
	r.hs.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "/keys/device_signing/upload") {
			return false
		}
		body, err := io.ReadAll(req.Body)
		if err != nil || bytes.Contains(body, []byte(`"session"`)) {
			req.Body = io.NopCloser(bytes.NewReader(body))
			return false // it is approved
		}
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"session":"s","flows":[{"stages":["m.oauth"]}],"params":{"m.oauth":{"url":"`+where+`"}}}`)
		return true
	})
	var stdout, stderr bytes.Buffer
	status := bridge.RunCommand(r.net, []string{"reset-cross-signing", "-yes", "-config", r.config}, nil, nil, &stdout, &stderr)
	if status != 0 || recoveryKey.FindString(stdout.String()) == "" || !strings.Contains(stderr.String(), where) {
		t.Errorf("%d %s\n%s", status, stdout.String(), stderr.String())
	}
}

func TestCheck_AnotherPickleKey_IsFound(t *testing.T) {
	const key, another = "the pickle key of the tests", "quite another pickle key"
	r := newRemoval(t, 0, func(cfg *bridge.Config) { cfg.Encryption.Mode, cfg.Encryption.PickleKey = "bot", key })
	r.b.Stop()
	text := must(os.ReadFile(r.config))(t)
	check := func(encryption string) (int, string) {
		r.ok(os.WriteFile(r.config, append(bytes.Clone(text), encryption...), 0o600))
		return r.command("check")
	}
	const finding = "FAIL  encryption"
	if _, out := check("encryption: {mode: bot, pickle_key: " + key + "}\n"); strings.Contains(out, finding) {
		t.Errorf("with the key of the bridge:\n%s", out)
	}
	for _, wrong := range []string{"encryption: {mode: bot, pickle_key: " + another + "}\n", "encryption: {mode: bot}\n"} {
		if status, out := check(wrong); status != 1 || !strings.Contains(out, finding) || !strings.Contains(out, "encryption.pickle_key") || strings.Contains(out, another) {
			t.Errorf("%s: %d\n%s", wrong, status, out)
		}
	}
	var both bytes.Buffer
	r.ok(os.WriteFile(r.config, append(bytes.Clone(text), "encryption: {mode: bot, pickle_key: "+another+"}\n"...), 0o600))
	if status := bridge.RunCommand(r.net, []string{"reset-cross-signing", "-config", r.config, "-yes"}, nil, nil, &both, &both); status != 1 || !strings.Contains(both.String(), "encryption.pickle_key") {
		t.Errorf("%d: the setting is not named:\n%s", status, both.String())
	}
}
