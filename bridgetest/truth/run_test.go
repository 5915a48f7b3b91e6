package truth_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/bridgetest/truth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// target is bridgetest's homeserver, with what the cases are written for.
func target(t *testing.T, p bridgetest.Personality, limits bool) truth.Target {
	t.Helper()
	opts := bridgetest.Options{Personality: p, MaxUpload: 64 << 10}
	if limits {
		opts.Limits = bridgetest.TightLimits()
		opts.Clock = bridgetest.NewClock() // stands still, so that nothing comes back while the case runs
	}
	hs := bridgetest.NewHomeserver(t, opts)
	tokens := map[string]string{"alice": hs.User("alice").Token()}
	for _, reg := range truth.Registrations(hs.Domain()) {
		if err := hs.AddRegistration(reg); err != nil {
			t.Fatal(err)
		}
		tokens[reg.ID] = reg.ASToken
	}
	return truth.Target{
		Personality: p, URL: hs.URL(), Domain: hs.Domain(), Tokens: tokens, Limits: limits, SmallUploads: true,
		Moderate: func(_ context.Context, user id.UserID, what bridgetest.Moderation) error {
			return hs.Moderate(user, what)
		},
	}
}

func TestEveryPersonality_AnswersAsTheCasesSay(t *testing.T) {
	for _, p := range bridgetest.Personalities() {
		t.Run(p.String(), func(t *testing.T) { truth.Run(t, target(t, p, false)) })
	}
	t.Run("limits", func(t *testing.T) { truth.Run(t, target(t, bridgetest.Synapse, true)) })
}

func TestRun_Twice_MeetsNothingOfTheFirstTime(t *testing.T) {
	same := target(t, bridgetest.Synapse, false)
	truth.Run(t, same)
	truth.Run(t, same)
}
