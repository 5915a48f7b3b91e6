package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/bridgetest/truth"
)

// writeRegistration writes a registration as Synapse reads it: without an address the URL is null.
func writeRegistration(t *testing.T, reg *bridgetest.Registration) string {
	t.Helper()
	data, err := yaml.Marshal(reg)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := yaml.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	if reg.URL == "" {
		fields["url"] = nil
	}
	if data, err = yaml.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), reg.ID+".yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// realTarget is a Synapse that the cases are run on.
func realTarget(t *testing.T, p bridgetest.Personality, config string) truth.Target {
	t.Helper()
	var paths []string
	tokens := make(map[string]string)
	for _, reg := range truth.Registrations(DefaultDomain) {
		paths = append(paths, writeRegistration(t, reg))
		tokens[reg.ID] = reg.ASToken
	}
	synapse := StartSynapse(t, SynapseOptions{Registrations: paths, Config: config + "\nmax_upload_size: 64K\n"})
	target := truth.Target{Personality: p, URL: synapse.URL, Domain: synapse.Domain, Tokens: tokens, SmallUploads: true}
	if p == bridgetest.SynapseOAuth {
		return target // nobody can log in, as there is no authentication service
	}
	tokens["alice"] = synapse.login("alice", false).AccessToken
	admin := synapse.login("admin", true)
	target.Moderate = func(ctx context.Context, user id.UserID, what bridgetest.Moderation) error {
		return moderate(ctx, admin, user, what)
	}
	return target
}

// moderate does with Synapse's administration API what Homeserver.Moderate does.
func moderate(ctx context.Context, admin *mautrix.Client, user id.UserID, what bridgetest.Moderation) error {
	for _, step := range []struct {
		method string
		path   mautrix.SynapseAdminURLPath
		body   map[string]any
		when   bool
	}{
		{http.MethodPut, mautrix.SynapseAdminURLPath{"v1", "suspend", user}, map[string]any{"suspend": what == bridgetest.Suspended}, true},
		{http.MethodPut, mautrix.SynapseAdminURLPath{"v2", "users", user}, map[string]any{"locked": what == bridgetest.Locked}, true},
		{http.MethodPost, mautrix.SynapseAdminURLPath{"v1", "deactivate", user}, map[string]any{}, what == bridgetest.Deactivated},
	} {
		if !step.when {
			continue
		}
		if _, err := admin.MakeRequest(ctx, step.method, admin.BuildURL(step.path), step.body, nil); err != nil {
			return fmt.Errorf("making %s %v: %w", user, what, err)
		}
	}
	return nil
}

// modelTarget is bridgetest's homeserver, with the same appservices and people as the real one.
func modelTarget(t *testing.T, real truth.Target, opts bridgetest.Options) truth.Target {
	t.Helper()
	opts.Personality, opts.ServerName, opts.MaxUpload = real.Personality, real.Domain, 64<<10
	hs := bridgetest.NewHomeserver(t, opts)
	for _, reg := range truth.Registrations(hs.Domain()) {
		if err := hs.AddRegistration(reg); err != nil {
			t.Fatal(err)
		}
	}
	model := real
	model.URL, model.Tokens = hs.URL(), maps.Clone(real.Tokens)
	if real.Tokens["alice"] != "" {
		model.Tokens["alice"] = hs.User("alice").Token()
	}
	if real.Moderate != nil {
		model.Moderate = func(_ context.Context, user id.UserID, what bridgetest.Moderation) error {
			return hs.Moderate(user, what)
		}
	}
	return model
}

func TestTruth_Synapse_AnswersAsBridgetestDoes(t *testing.T) {
	real := realTarget(t, bridgetest.Synapse, "")
	truth.Compare(t, modelTarget(t, real, bridgetest.Options{}), real)
}

// The limits are those of bridgetest.TightLimits, but nothing comes back while a case runs, however slow the machine is.
func TestTruth_SynapseWithLimits_AnswersAsBridgetestDoes(t *testing.T) {
	limits := bridgetest.TightLimits()
	rate := func(r bridgetest.Rate) string { return fmt.Sprintf("{per_second: 0.001, burst_count: %d}", r.Burst) }
	real := realTarget(t, bridgetest.Synapse, fmt.Sprintf(`
rc_message: %s
rc_joins: {local: %s, remote: %s}
rc_login: {address: %s, account: %s, failed_attempts: %s}
`, rate(limits.Messages), rate(limits.Joins), unlimited, rate(limits.LoginsByAddress), rate(limits.Logins), unlimited))
	real.Limits = true
	truth.Compare(t, modelTarget(t, real, bridgetest.Options{Limits: limits, Clock: bridgetest.NewClock()}), real)
}

// Logins are delegated to an authentication service. What appservices do needs none, so this one knows no token, and has
// nothing else to say: real ones are no Debian packages.
func TestTruth_SynapseWithOAuth_AnswersAsBridgetestDoes(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/oauth2/introspect" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(`{"active": false}`))
	}))
	t.Cleanup(service.Close)
	real := realTarget(t, bridgetest.SynapseOAuth, fmt.Sprintf(`
matrix_authentication_service: {enabled: true, endpoint: "%s/", secret: not-used}
password_config: {enabled: false}
`, service.URL))
	truth.Compare(t, modelTarget(t, real, bridgetest.Options{}), real)
}
