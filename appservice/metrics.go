package appservice

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trestle-bridge/trestle/store"
)

// metrics are the collectors of one appservice. They count whether or not anybody looks.
type metrics struct {
	transactions  *prometheus.CounterVec
	events        *prometheus.CounterVec
	done          map[store.Kind]prometheus.Counter // of events, the one that counts most often
	ephemerals    *prometheus.CounterVec
	queries       *prometheus.CounterVec
	bodyBytes     prometheus.Histogram
	parseSeconds  prometheus.Histogram
	commitSeconds prometheus.Histogram
	handSeconds   prometheus.Histogram // part of commitSeconds
	holdSeconds   prometheus.Histogram
	deadLetters   prometheus.Counter
	limits        *prometheus.CounterVec
	refusals      *prometheus.CounterVec
}

func newMetrics(to prometheus.Registerer, backlog func() (items, lanes int), lapses *lapses) (*metrics, error) {
	const prefix = "trestle_appservice_"
	m := &metrics{
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "transactions_total",
			Help: "Transactions from the homeserver, by outcome (ok, refused, too_large, broken_off, client_gone).",
		}, []string{"outcome"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "events_total",
			Help: "Stored events after their handler, by kind and outcome (done, retried, buried).",
		}, []string{"kind", "outcome"}),
		ephemerals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "ephemeral_total",
			Help: "Ephemeral events, by outcome (handled, dropped).",
		}, []string{"outcome"}),
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "queries_total",
			Help: "Queries of the homeserver, by kind (user, alias, protocol, third_party_user, third_party_location) and outcome (found, unknown, failed, timeout, client_gone).",
		}, []string{"kind", "outcome"}),
		bodyBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "transaction_bytes",
			Help:    "Size of the bodies of transactions that were read.",
			Buckets: prometheus.ExponentialBuckets(256, 4, 10), // to 64 MiB
		}),
		parseSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "parse_seconds",
			Help:    "Time to take a transaction's body apart.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 4, 10), // 10 µs to 2.6 s
		}),
		handSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "hand_over_seconds",
			Help:    "Time to give the events of a committed transaction to their lanes.",
			Buckets: prometheus.ExponentialBuckets(0.000001, 4, 10), // 1 µs to 0.26 s
		}),
		holdSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "hold_seconds",
			Help:    "How long the answer to a transaction was held back because it could not be stored at once. Others are not counted.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 25},
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "commit_seconds",
			Help:    "Time from a transaction read to a transaction committed.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		deadLetters: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "dead_letters_total",
			Help: "Dead letters written.",
		}),
		limits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "rate_limits_total",
			Help: "Rate limits of the homeserver met by requests, by class (messages, joins, invites, logins, other) and outcome (refused: answered 429; waited: held back until it may go; held: given back to its caller unsent).",
		}, []string{"class", "outcome"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "refusals_total",
			Help: "Requests that the homeserver refused for the sake of who made them, by reason (suspended, locked, deactivated, server_limit, token).",
		}, []string{"reason"}),
	}
	m.begin()
	if to == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.transactions, m.events, m.ephemerals, m.queries, m.bodyBytes, m.parseSeconds, m.commitSeconds, m.handSeconds, m.holdSeconds, m.deadLetters,
		m.limits, m.refusals, lapses.collector(prefix),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "backlog_events", Help: "Events that wait for their handler, or are under way.",
		}, func() float64 { items, _ := backlog(); return float64(items) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "lanes", Help: "Lanes that have events.",
		}, func() float64 { _, lanes := backlog(); return float64(lanes) }),
	} {
		if err := to.Register(c); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("register metrics: %w", errors.Join(errs...))
	}
	return m, nil
}

// begin makes every combination of labels known, at zero: what appears only when it happens first is no increase to an
// alert.
func (m *metrics) begin() {
	for _, outcome := range []string{"ok", "refused", "out_of_turn", "too_large", "broken_off", "client_gone"} {
		m.transactions.WithLabelValues(outcome)
	}
	m.done = map[store.Kind]prometheus.Counter{}
	for _, kind := range []store.Kind{store.KindPDU, store.KindToDevice, store.KindDeviceLists, store.KindKeyCounts} {
		m.done[kind] = m.events.WithLabelValues(kindLabel(kind), "done")
		for _, outcome := range []string{"done", "retried", "buried"} {
			m.events.WithLabelValues(kindLabel(kind), outcome)
		}
	}
	for _, c := range classes {
		for _, outcome := range []string{"refused", "waited", "held"} {
			m.limits.WithLabelValues(string(c), outcome)
		}
	}
	for _, reason := range []string{"suspended", "locked", "deactivated", "server_limit", "token"} {
		m.refusals.WithLabelValues(reason)
	}
	for _, outcome := range []string{"handled", "dropped"} {
		m.ephemerals.WithLabelValues(outcome)
	}
	for _, kind := range []string{"user", "alias", "protocol", "third_party_user", "third_party_location"} {
		for _, outcome := range []string{"found", "unknown", "failed", "timeout", "client_gone"} {
			m.queries.WithLabelValues(kind, outcome)
		}
	}
}

func (m *metrics) transaction(outcome string) { m.transactions.WithLabelValues(outcome).Inc() }
func (m *metrics) ephemeral(outcome string)   { m.ephemerals.WithLabelValues(outcome).Inc() }
func (m *metrics) refusal(reason string)      { m.refusals.WithLabelValues(reason).Inc() }
func (m *metrics) dead(n int)                 { m.deadLetters.Add(float64(n)) }

func (m *metrics) limit(c class, outcome string) {
	m.limits.WithLabelValues(string(c), outcome).Inc()
}

func (m *metrics) query(kind, outcome string) { m.queries.WithLabelValues(kind, outcome).Inc() }

func (m *metrics) found(kind string, found bool) {
	if found {
		m.query(kind, "found")
	} else {
		m.query(kind, "unknown")
	}
}

func (m *metrics) event(kind store.Kind, outcome string) {
	if done, ok := m.done[kind]; ok && outcome == "done" {
		done.Inc()
		return
	}
	m.events.WithLabelValues(kindLabel(kind), outcome).Inc()
}

func kindLabel(kind store.Kind) string {
	switch kind {
	case store.KindPDU:
		return "pdu"
	case store.KindToDevice:
		return "to_device"
	case store.KindDeviceLists:
		return "device_lists"
	case store.KindKeyCounts:
		return "key_counts"
	}
	return "unknown"
}
