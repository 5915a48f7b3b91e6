package store

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// scrapeTimeout is for what a scrape reads from the database.
const scrapeTimeout = 5 * time.Second

func describe(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("trestle_store_"+name, help, nil, nil)
}

var (
	descGroups  = describe("commits_total", "Database transactions that were committed; each carries one or more jobs.")
	descJobs    = describe("commit_jobs_total", "Jobs that were committed.")
	descTook    = describe("commit_seconds_total", "Time from the last job of a database transaction to the end of its COMMIT: the wait for the disk.")
	descFailed  = describe("commit_failures_total", "Database transactions that could not be begun, written or committed.")
	descDead    = describe("dead_letters", "Dead letters that are kept.")
	descOutbox  = describe("outbox_rows", "Rows of the outbox: what waits to be done on the homeserver.")
	descOutAge  = describe("outbox_oldest_seconds", "Age of the oldest row of the outbox; 0 when it is empty.")
	descInAge   = describe("inbox_oldest_seconds", "Age of the oldest transaction with events that are not handled; 0 when there is none.")
	descParked  = describe("parked_events", "Encrypted events whose key has not come.")
	ofTheTables = []*prometheus.Desc{descDead, descOutbox, descParked, descOutAge, descInAge}
)

// Collector gives the store's figures to Prometheus, all named trestle_store_*. A scrape reads the database for some of
// them; when it cannot, those are missing from it, with an error.
func (s *Store) Collector() prometheus.Collector { return collector{s} }

type collector struct{ *Store }

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range append([]*prometheus.Desc{descGroups, descJobs, descTook, descFailed}, ofTheTables...) {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, value float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value)
	}
	gauge := func(d *prometheus.Desc, value float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	counter(descGroups, float64(c.tally.groups.Load()))
	counter(descJobs, float64(c.tally.jobs.Load()))
	counter(descTook, time.Duration(c.tally.took.Load()).Seconds())
	counter(descFailed, float64(c.tally.failed.Load()))
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	depth, err := c.Depth(ctx)
	if err != nil {
		for _, d := range ofTheTables {
			to <- prometheus.NewInvalidMetric(d, err)
		}
		return
	}
	gauge(descDead, float64(depth.DeadLetters))
	gauge(descOutbox, float64(depth.Outbox))
	gauge(descParked, float64(depth.Parked))
	gauge(descOutAge, age(c.opts.Now(), depth.OldestOutbox))
	gauge(descInAge, age(c.opts.Now(), depth.OldestInbox))
}

func age(now, oldest time.Time) float64 {
	if oldest.IsZero() {
		return 0
	}
	return max(now.Sub(oldest).Seconds(), 0) // clocks are put back
}
