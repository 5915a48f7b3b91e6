package main

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// stats is the answer of GET /stats. Times are in seconds, summed up since the start.
type stats struct {
	Handled       int64   `json:"handled"`        // events handled and durable
	Requests      int64   `json:"requests"`       // transactions answered
	RequestTime   float64 `json:"request_time"`   // in the handler of HTTP, from its headers to its answer
	ParseTime     float64 `json:"parse_time"`     // of that, taking bodies apart
	CommitTime    float64 `json:"commit_time"`    // of that, waiting for the store
	HandOverTime  float64 `json:"hand_over_time"` // of that, giving events to their lanes
	WaitingEvents int64   `json:"waiting_events"` // in the inbox's unfinished rows
}

// The histograms that the appservice keeps of where the time goes. The commit's has the hand-over's in it.
const (
	parseMetric    = "trestle_appservice_parse_seconds"
	commitMetric   = "trestle_appservice_commit_seconds"
	handOverMetric = "trestle_appservice_hand_over_seconds"
)

func newServer(as *appservice.AppService, s *store.Store, h *handler, g *gate, metrics *prometheus.Registry, withPprof bool) http.Handler {
	var requests, requestNanos atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		as.ServeHTTP(w, r)
		requests.Add(1)
		requestNanos.Add(int64(time.Since(begin)))
	})
	mux.HandleFunc("/_matrix/client/", homeserver)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := as.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		answer(w, struct{}{})
	})
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, r *http.Request) {
		c, err := count(r.Context(), s)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, c)
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, r *http.Request) {
		inbox, err := s.InboxStats(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		handOver := sum(metrics, handOverMetric)
		answer(w, stats{
			Handled: h.handled.Load(), Requests: requests.Load(), RequestTime: time.Duration(requestNanos.Load()).Seconds(),
			ParseTime: sum(metrics, parseMetric), CommitTime: sum(metrics, commitMetric) - handOver, HandOverTime: handOver,
			WaitingEvents: inbox.Events,
		})
	})
	mux.HandleFunc("POST /release", g.serveRelease)
	mux.HandleFunc("POST /collect", func(w http.ResponseWriter, _ *http.Request) {
		debug.FreeOSMemory()
		answer(w, struct{}{})
	})
	if withPprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// homeserver is all of a homeserver that the appservice meets at its start: the bot is registered, and there is no ping.
func homeserver(w http.ResponseWriter, r *http.Request) {
	code, status := "M_UNRECOGNIZED", http.StatusNotFound
	if strings.HasSuffix(r.URL.Path, "/register") {
		code, status = "M_USER_IN_USE", http.StatusBadRequest
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"errcode": code, "error": "this is no homeserver"})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// sum gives what a histogram has added up, 0 when there is none of that name.
func sum(metrics prometheus.Gatherer, name string) float64 {
	families, err := metrics.Gather()
	if err != nil {
		return 0
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				total += m.GetHistogram().GetSampleSum()
			}
		}
	}
	return total
}
