package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trestle-bridge/trestle/store"
)

var metricChecks = []check{
	{"Depth_WhatWaits_IsCountedAndTheOldestNamed", func(t *testing.T, db *database) {
		db.now = time.UnixMilli(1_000_000).UTC()
		s := db.open(t)
		if d, err := s.Depth(ctx()); err != nil || d != (store.Depth{}) {
			t.Errorf("an empty store: %+v %v", d, err)
		}
		old, young := db.now.Add(-time.Hour), db.now.Add(-time.Minute)
		for i, at := range []time.Time{old, young} {
			Commit(t, s, func(tx *store.Tx) error {
				if err := tx.Bury(&store.DeadLetter{Kind: "pdu", Body: []byte("x")}); err != nil {
					return err
				}
				if _, err := tx.Enqueue(&store.Outgoing{Lane: "!r", Op: "message", Created: at}); err != nil {
					return err
				}
				_, err := tx.Ingest(&store.Transaction{ID: fmt.Sprint(i), Received: at, Elements: []store.Element{pdu("!r", fmt.Sprint("$", i))}})
				return err
			})
		}
		Commit(t, s, func(tx *store.Tx) error { return tx.Park(&store.Parked{Room: "!r", Session: "s", Until: db.now}) })
		want := store.Depth{DeadLetters: 2, Outbox: 2, Parked: 1, OldestOutbox: old, OldestInbox: old}
		if d, err := s.Depth(ctx()); err != nil || d != want {
			t.Errorf("%+v %v, want %+v", d, err, want)
		}
		got := scrape(t, s)
		for name, value := range map[string]float64{
			"trestle_store_dead_letters": 2, "trestle_store_outbox_rows": 2, "trestle_store_parked_events": 1, "trestle_store_outbox_oldest_seconds": 3600,
			"trestle_store_inbox_oldest_seconds": 3600, "trestle_store_commits_total": 3, "trestle_store_commit_jobs_total": 3, "trestle_store_commit_failures_total": 0,
		} {
			if got[name] != value {
				t.Errorf("%s is %v, want %v", name, got[name], value)
			}
		}
		if got["trestle_store_commit_seconds_total"] <= 0 || s.LastCommit().IsZero() {
			t.Errorf("%v, last %v", got, s.LastCommit())
		}
	}},
	{"Collector_JobsThatFail_AreNoCommits", func(t *testing.T, db *database) {
		s := db.open(t)
		before := scrape(t, s)
		if fails(s, func(*store.Tx) error { return fmt.Errorf("no") }) == nil {
			t.Fatal("it did not fail")
		}
		after := scrape(t, s)
		for _, name := range []string{"trestle_store_commits_total", "trestle_store_commit_jobs_total", "trestle_store_commit_failures_total"} {
			if before[name] != after[name] {
				t.Errorf("%s went from %v to %v", name, before[name], after[name])
			}
		}
	}},
}

// scrape gathers the store's figures by name.
func scrape(t *testing.T, s *store.Store) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		m := family.GetMetric()[0]
		out[family.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return out
}
