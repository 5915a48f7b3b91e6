package appservice

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

func TestStop_EphemeralHandlerThatNeverReturns_IsNotWaitedForForEver(t *testing.T) {
	f := newFixture(t, nil)
	f.as.patience = 10 * time.Millisecond
	in, out := make(chan struct{}), make(chan struct{})
	f.rec.ephemeral = func(*Ephemeral) { close(in); <-out }
	f.mustPut("1", `{"ephemeral":[{"type":"m.presence","sender":"@a:hs.test","content":{"presence":"online"}}]}`)
	<-in
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.as.Stop(ctx); err == nil { // would hang
		t.Error("Stop says that nothing runs any more")
	}
	close(out)
	f.as.patience = time.Minute
	if err := f.as.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestStop_TransactionThatComesTooLate_IsRefusedAndNoError(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, nil, func(c *Config) { c.Log = zerolog.New(zerolog.SyncWriter(&log)) })
	f.stop()
	if code, _ := f.put("1", `{"events":[]}`); code != 503 {
		t.Errorf("it is answered %d", code)
	}
	if got := log.String(); !strings.Contains(got, "A transaction was refused") || strings.Contains(got, `"level":"error"`) {
		t.Errorf("the log: %s", got)
	}
}

func TestHold_CommitThatHangs_IsNotWaitedFor(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begun, release, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		<-begun
		cancel()
	}()
	err := within(ctx, func() error {
		defer close(over)
		close(begun)
		<-release
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(release)
	<-over
}

func TestMetrics_DeadLettersOfARepeatedTransaction_CountOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	f := newFixture(t, nil, func(c *Config) { c.Metrics = registry })
	for range 3 {
		f.mustPut("1", events("1", "2", message("$1")))
	}
	f.idle()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "trestle_appservice_dead_letters_total" {
			if n := family.GetMetric()[0].GetCounter().GetValue(); n != 2 {
				t.Errorf("%v dead letters were counted, want 2", n)
			}
			return
		}
	}
	t.Error("there is no such metric")
}
