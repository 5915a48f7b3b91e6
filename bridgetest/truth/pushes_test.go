package truth_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/bridgetest/truth"
)

func startSender(t *testing.T, p *truth.Pushes, opts bridgetest.Options) truth.Sender {
	t.Helper()
	opts.RestartSequence, opts.RetryUnit = true, 250*time.Millisecond
	hs := bridgetest.NewHomeserver(t, opts)
	if err := hs.AddRegistration(p.Registration); err != nil {
		t.Fatal(err)
	}
	return truth.Sender{
		URL: hs.URL(), Domain: hs.Domain(), Alice: hs.User("alice").Token(), Patience: time.Minute, Silence: 600 * time.Millisecond,
		Stop: func() {
			_, err := hs.WaitAppService(t.Context(), p.Registration.ID, func(s bridgetest.AppServiceState) bool { return s.Pending == 0 || !s.Up })
			if err != nil {
				t.Error(err)
			}
			hs.Restart()
		},
		Start: func() error { return nil },
	}
}

func TestPushes_OfSynapse_AreAsTheRealOneSendsThem(t *testing.T) {
	t.Parallel() // it waits for retries
	p := truth.NewPushes(t, "hs.test")
	got, err := p.Record(t.Context(), startSender(t, p, bridgetest.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if difference := truth.PushDifference(got, truth.Pushed()); difference != "" {
		t.Error(difference)
	}
}

func TestPushes_OfSynapseWithoutExperimentalFeatures_AreAsTheRealOneSendsThem(t *testing.T) {
	p := truth.NewPushes(t, "hs.test")
	p.Registration.ReceiveEphemeral, p.Registration.PushEphemeral = false, true
	got, err := p.RecordFew(t.Context(), startSender(t, p, bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true, LegacyQueryToken: true}))
	if err != nil {
		t.Fatal(err)
	}
	if difference := truth.PushDifference(got, truth.PushedFew()); difference != "" {
		t.Error(difference)
	}
}

// Tuwunel sends the same things in another way: a record is not the same for everybody.
func TestPushDifference_BetweenHomeservers_IsNamed(t *testing.T) {
	p := truth.NewPushes(t, "hs.test")
	p.Registration.DeviceManagement = true
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := p.RecordFew(ctx, startSender(t, p, bridgetest.Options{Personality: bridgetest.Tuwunel}))
	if err != nil {
		t.Fatal(err)
	}
	difference := truth.PushDifference(got, truth.PushedFew())
	if !strings.Contains(difference, "before the invitation") {
		t.Errorf("the difference is %q", difference)
	}
	if difference := truth.PushDifference(got, got); difference != "" {
		t.Errorf("the same differs: %s", difference)
	}
}
