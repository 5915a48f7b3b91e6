package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/gorilla/mux"
)

// maxQuestions is how many questions of the homeserver the handler has at once; further ones wait for a place. It also
// bounds how many goroutines a handler can keep that does not end with its context.
const maxQuestions = 64

// questions are what the handler is being asked on behalf of the homeserver.
type questions struct {
	places  chan struct{}
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

func newQuestions() *questions { return &questions{places: make(chan struct{}, maxQuestions)} }

// begin waits for a place. Whoever gets one calls end.
func (q *questions) begin(ctx context.Context) error {
	select {
	case q.places <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%d other questions are not answered yet: %w", maxQuestions, ctx.Err())
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		<-q.places
		return errStopped
	}
	q.running.Add(1)
	return nil
}

func (q *questions) end() {
	<-q.places
	q.running.Done()
}

// close refuses further questions and waits for the handler to end with those that it has.
func (q *questions) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.running.Wait()
}

// pathName gives a variable of the path, decoded. ok is false for what nothing can be called, which is not worth asking
// the handler: no UTF-8, control characters, longer than any ID.
func pathName(r *http.Request, variable string) (name string, ok bool) {
	name, err := url.PathUnescape(mux.Vars(r)[variable])
	return name, err == nil && isName(name)
}

func isName(s string) bool {
	return s != "" && len(s) <= maxUserID && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// ask lets the handler answer a question of the homeserver, for at most Config.QueryTimeout and for as long as somebody
// waits for the answer. When ok is false, what there is to say has been said: only a handler that finds nothing makes the
// homeserver believe that there is nothing.
func ask[T any](as *AppService, w http.ResponseWriter, r *http.Request, kind, about string, question func(ctx context.Context) (T, error)) (answer T, ok bool) {
	log := as.log.With().Str("query", kind).Str("about", about).Logger()
	if err := as.running(); err != nil {
		as.metrics.query(kind, "failed")
		log.Warn().Err(err).Msg("A query of the homeserver came while the bridge does not run")
		answerError(w, http.StatusServiceUnavailable, codeUnknown, "the bridge is starting or stopping; ask again later")
		return answer, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), as.cfg.QueryTimeout)
	defer cancel()
	defer context.AfterFunc(as.runCtx, cancel)()
	answer, err := askHandler(ctx, as, question)
	switch {
	case err == nil:
		return answer, true
	case r.Context().Err() != nil:
		as.metrics.query(kind, "client_gone")
		log.Debug().Err(err).Msg("The homeserver did not wait for the answer to its query")
		return answer, false // there is nobody to tell
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		as.metrics.query(kind, "timeout")
		log.Warn().Err(err).Dur("limit", as.cfg.QueryTimeout).Msg("A query of the homeserver was not answered in time")
		answerError(w, http.StatusInternalServerError, codeUnknown, "the bridge could not find out in time")
	default:
		as.metrics.query(kind, "failed")
		log.Warn().Err(err).Msg("A query of the homeserver could not be answered")
		answerError(w, http.StatusInternalServerError, codeUnknown, "the bridge could not find out")
	}
	return answer, false
}

// errNoAnswer is what became of a question whose goroutine the handler ended.
var errNoAnswer = errors.New("the handler ended without an answer")

// askHandler ends with ctx, whether or not the handler does, and survives its panic.
func askHandler[T any](ctx context.Context, as *AppService, question func(ctx context.Context) (T, error)) (T, error) {
	type outcome struct {
		answer T
		err    error
	}
	var none T
	if err := as.questions.begin(ctx); err != nil {
		return none, err
	}
	ended := make(chan outcome, 1)
	go func() {
		defer as.questions.end()
		o := outcome{err: errNoAnswer}
		defer func() {
			if v := recover(); v != nil {
				as.log.Error().Str("panic", fmt.Sprint(v)).Bytes("stack", debug.Stack()).Msg("A handler panicked over a query of the homeserver")
				o = outcome{err: panicError{v}}
			}
			ended <- o
		}()
		o.answer, o.err = question(ctx)
	}()
	select {
	case o := <-ended:
		return o.answer, o.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

func answerJSON(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}
