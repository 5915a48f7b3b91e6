package e2e

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridgetest/truth"
)

var updateTruth = flag.Bool("update-truth", false, "write what this Synapse sends to the records that bridgetest is held to")

// checkPushes records what a Synapse sends and compares it with the record that bridgetest's own tests hold it to.
func checkPushes(t *testing.T, p *truth.Pushes, config string, run func(context.Context, truth.Sender) (string, error), file, want string) {
	t.Helper()
	synapse := StartSynapse(t, SynapseOptions{Registrations: []string{writeRegistration(t, p.Registration)}, Config: config})
	got, err := run(t.Context(), truth.Sender{
		URL: synapse.URL, Domain: synapse.Domain, Alice: synapse.login("alice", false).AccessToken,
		Stop: synapse.Stop, Start: func() error { synapse.Start(); return nil }, Patience: patience, Silence: 3 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if *updateTruth {
		if err := os.WriteFile("../bridgetest/truth/"+file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if difference := truth.PushDifference(want, got); difference != "" {
		t.Errorf("Synapse sends something else than bridgetest does: %s\nWrite it down with -update-truth, and mend bridgetest.", difference)
	}
}

func TestTruth_Synapse_SendsWhatBridgetestDoes(t *testing.T) {
	p := truth.NewPushes(t, DefaultDomain)
	checkPushes(t, p, "", p.Record, "pushed.txt", truth.Pushed())
}

func TestTruth_SynapseWithLegacyQueryTokenAndWithoutFeatures_SendsWhatBridgetestDoes(t *testing.T) {
	p := truth.NewPushes(t, DefaultDomain)
	p.Registration.ReceiveEphemeral, p.Registration.PushEphemeral = false, true
	checkPushes(t, p, "use_appservice_legacy_authorization: true\nexperimental_features: {}\n", p.RecordFew, "pushed-few.txt", truth.PushedFew())
}
