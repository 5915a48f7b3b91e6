package bridge

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// bridgeMetrics are the bridge's own figures, all named trestle_bridge_*.
type bridgeMetrics struct {
	outbox *prometheus.CounterVec
}

func newBridgeMetrics() bridgeMetrics {
	m := bridgeMetrics{outbox: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "trestle_bridge_outbox_total",
		Help: "Attempts to do on the homeserver what the outbox asks for, by outcome (done, retried, buried).",
	}, []string{"outcome"})}
	for _, outcome := range []string{"done", "retried", "buried"} {
		m.outbox.WithLabelValues(outcome) // known from the start, at zero
	}
	return m
}

func (m *bridgeMetrics) attempt(outcome string) { m.outbox.WithLabelValues(outcome).Inc() }

// registerMetrics registers everything that is not the appservice's or the proxy's.
func (b *Bridge) registerMetrics(to prometheus.Registerer) {
	to.MustRegister(b.metrics.outbox, readinessCollector{b}, b.store.Collector(), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trestle_bridge_offline_seconds",
		Help: "How long the session has been known to be offline; 0 while it is not.",
	}, func() float64 {
		if since := b.offlineSince(); !since.IsZero() {
			return time.Since(since).Seconds()
		}
		return 0
	}))
}

var descReady = prometheus.NewDesc("trestle_bridge_check_ok",
	"What /readyz says: 1 for each check that is well, else 0.", []string{"check"}, nil)

// readinessCollector looks at every check when it is scraped.
type readinessCollector struct{ b *Bridge }

// Describe implements prometheus.Collector.
func (r readinessCollector) Describe(to chan<- *prometheus.Desc) { to <- descReady }

// Collect implements prometheus.Collector.
func (r readinessCollector) Collect(to chan<- prometheus.Metric) {
	for _, c := range r.b.readiness(context.Background()) {
		value := 0.0
		if c.OK {
			value = 1
		}
		to <- prometheus.MustNewConstMetric(descReady, prometheus.GaugeValue, value, c.Name)
	}
}
