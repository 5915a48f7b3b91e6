package bridge

import (
	stdlog "log"
	"net/http"
	"time"

	"github.com/rs/zerolog"
)

// The time limits of the bridge's own listeners; those of media links are in package proxy. Nobody holds a connection for
// ever, however slowly a byte comes or goes, and nobody who is only slow is cut off.
const (
	headerLimit = 10 * time.Second
	// bodyLimit is for a whole request of the homeserver: 64 MiB at 2 Mbit/s. No homeserver waits longer than a minute.
	bodyLimit = 5 * time.Minute
	// answerLimit is for what follows the body and the longest hold: storing it, and writing an answer of a few bytes.
	answerLimit = 30 * time.Second
	idleLimit   = 5 * time.Minute
	// maxHeader is far above what a homeserver sends, tokens in the path included.
	maxHeader = 64 << 10

	// Of the listener for health and metrics, whose requests have no body and whose answers are small.
	watchReadLimit   = 10 * time.Second
	watchAnswerLimit = time.Minute
)

// homeserverServer is for transactions and queries. hold is the longest that the answer to a transaction is held back.
func homeserverServer(handler http.Handler, hold time.Duration, log zerolog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerLimit, ReadTimeout: bodyLimit,
		WriteTimeout: bodyLimit + hold + answerLimit, // it counts from the end of the header
		IdleTimeout:  idleLimit, MaxHeaderBytes: maxHeader, ErrorLog: stdlog.New(log, "", 0),
	}
}

// watchServer is for health and metrics, and for the pings of the subcommand check.
func watchServer(handler http.Handler, log zerolog.Logger) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerLimit, ReadTimeout: watchReadLimit, WriteTimeout: watchAnswerLimit,
		IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader, ErrorLog: stdlog.New(log, "", 0),
	}
}
