package proxy

import (
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	answers     *prometheus.CounterVec
	cuts        *prometheus.CounterVec
	bytes       prometheus.Counter
	macFailures prometheus.Counter
	denied      prometheus.Counter
	inFlight    prometheus.Gauge
	firstByte   prometheus.Histogram
	limited     *prometheus.CounterVec
	cache       *prometheus.CounterVec
	removed     *prometheus.CounterVec
	cacheBytes  prometheus.Gauge
	cacheFiles  prometheus.Gauge
	tampered    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trestle_media_answers_total", Help: "Answers of the media proxy, by status code.",
		}, []string{"code"}),
		cuts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trestle_media_cut_total", Help: "Answers cut short after they had begun, by cause: reader, homeserver, size, time, revoked, hash.",
		}, []string{"cause"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trestle_media_bytes_total", Help: "Bytes of media sent to readers.",
		}),
		macFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trestle_media_mac_failures_total", Help: "Well-formed links whose MAC does not hold.",
		}),
		denied: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trestle_media_homeserver_denied_total", Help: "Requests that the homeserver refused with 401 or 403: the token is wrong, or has no access. Alarm on any.",
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "trestle_media_in_flight", Help: "Requests for media being served.",
		}),
		firstByte: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "trestle_media_first_byte_seconds", Help: "From a request for media to the first byte of its answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trestle_media_limited_total", Help: "Requests answered with 429, by the limit: places, room_places, reader, room, media, all.",
		}, []string{"limit"}),
		cache: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trestle_media_cache_total", Help: "Files asked of the cache: hit (on disk), joined (a fetch under way was followed), miss (fetched), passed (no room; fetched without the cache).",
		}, []string{"result"}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trestle_media_cache_removed_total", Help: "Files that left the cache, by cause: room, age, broken, revoked, hash.",
		}, []string{"cause"}),
		cacheBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "trestle_media_cache_bytes", Help: "Disk that the cache uses, or has set aside for files on their way.",
		}),
		cacheFiles: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "trestle_media_cache_files", Help: "Files in the cache.",
		}),
		tampered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trestle_media_hash_failures_total", Help: "Encrypted files that were not what their sender's hash says. Not served.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.answers, m.cuts, m.bytes, m.macFailures, m.denied, m.inFlight, m.firstByte, m.limited, m.cache, m.removed, m.cacheBytes, m.cacheFiles, m.tampered} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the metrics of the media proxy: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) answered(code int) { m.answers.WithLabelValues(strconv.Itoa(code)).Inc() }
