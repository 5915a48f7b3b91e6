package appservice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"

	"github.com/trestle-bridge/trestle/internal/failpoint"
	"github.com/trestle-bridge/trestle/store"
)

// putTransaction takes a transaction in. Its answer is 200 once everything durable in it is committed, and then never
// anything else because of what is in it: a homeserver that is refused sends the same again, for ever.
func (as *AppService) putTransaction(w http.ResponseWriter, r *http.Request) {
	txnID, err := url.PathUnescape(mux.Vars(r)["txnId"])
	if err != nil {
		txnID = mux.Vars(r)["txnId"]
	}
	txnID = storable(txnID)
	as.lapses.comes(txnID)
	var taken *store.Transaction
	brokenOff := false // nobody waits for the answer
	defer func() { as.lapses.went(taken, brokenOff) }()
	body, err := as.readBody(w, r)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		as.metrics.transaction("too_large")
		as.log.Error().Str("txn_id", txnID).Int64("limit", as.cfg.MaxBody).
			Msg("A transaction over the size limit was refused; the homeserver sends it again until the limit is raised")
		answerError(w, http.StatusRequestEntityTooLarge, codeTooLarge, fmt.Sprintf("the limit is %d bytes; raise it in the bridge's configuration", as.cfg.MaxBody))
		return
	} else if err != nil {
		brokenOff = true
		as.metrics.transaction("broken_off")
		answerError(w, http.StatusBadRequest, codeNotJSON, "the body broke off")
		return
	}
	begin := time.Now()
	t, ephemeral := as.takeApart(txnID, body)
	as.metrics.parseSeconds.Observe(time.Since(begin).Seconds())
	as.metrics.bodyBytes.Observe(float64(len(body)))
	if len(ephemeral) == 0 && as.gaps.refuses(t) {
		as.metrics.transaction("out_of_turn")
		as.log.Info().Str("txn_id", txnID).Msg("A transaction is missing that Synapse keeps back; the next is refused once, so that it sends them in their order")
		answerError(w, http.StatusServiceUnavailable, codeUnknown, "an earlier transaction has not been sent; send both again")
		return
	}
	as.readings.wait(r.Context(), t)
	if err := as.takeIn(r.Context(), t); err != nil {
		if r.Context().Err() != nil {
			brokenOff = true
			as.metrics.transaction("client_gone")
			return
		}
		as.metrics.transaction("refused")
		level := zerolog.ErrorLevel
		if errors.Is(err, errStopped) {
			level = zerolog.InfoLevel // as every stop may have it
		}
		as.log.WithLevel(level).Err(err).Str("txn_id", txnID).Msg("A transaction was refused; the homeserver will send it again")
		answerError(w, http.StatusServiceUnavailable, codeUnknown, "the bridge cannot take the transaction in now; send it again later")
		return
	}
	as.gaps.took(t)
	as.carried.note(t)
	taken, brokenOff = t, r.Context().Err() != nil
	if as.cfg.Registration.ReceiveEphemeral {
		as.ephemeral.offer(ephemeral)
	}
	as.metrics.transaction("ok")
	failpoint.Before("200")
	if failpoint.On { // the whole answer leaves at once, and not with the handler's end
		w.Header().Set("Content-Length", "2")
	}
	answerOK(w)
	if failpoint.On {
		_ = http.NewResponseController(w).Flush()
	}
	failpoint.After("200")
}

func (as *AppService) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	reader := http.MaxBytesReader(w, r.Body, as.cfg.MaxBody)
	if r.ContentLength > as.cfg.MaxBody {
		return nil, &http.MaxBytesError{Limit: as.cfg.MaxBody}
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(r.ContentLength) + bytes.MinRead) // one allocation; the token was right, so the length is believed
	}
	if _, err := buf.ReadFrom(reader); err != nil { // net/http reports a body that is shorter than it said
		return nil, err
	}
	return buf.Bytes(), nil
}

// takeApart makes of a body what is to be stored, and what is only passed on.
func (as *AppService) takeApart(txnID string, body []byte) (*store.Transaction, [][]byte) {
	t := &store.Transaction{ID: txnID, Received: time.Now()}
	c, err := splitTransaction(txnID, body)
	if err != nil {
		t.Dead = []store.DeadLetter{{Kind: "body", Key: txnID, Cause: storable("the body of a transaction is not a JSON object: " + err.Error()), Body: body}}
		return t, nil
	}
	t.Elements, t.EncryptedRooms, t.ChangedUsers, t.Dead = c.elements, c.encrypted, c.changed, c.dead
	return t, c.ephemeral
}

// holdPause is how long a transaction that cannot be taken in waits before it tries again.
const holdPause = 100 * time.Millisecond

// errBacklog says that too many events wait already.
var errBacklog = errors.New("the backlog is at its limit")

// takeIn commits a transaction and hands what is new over to the lanes. While the backlog is at its limit or the store
// fails it holds on, up to HoldFor or until ctx ends: a refused transaction comes back without its to-device messages.
func (as *AppService) takeIn(ctx context.Context, t *store.Transaction) error {
	_, err := as.takeNew(ctx, t)
	return err
}

// takeNew is takeIn; fresh is how much was new.
func (as *AppService) takeNew(ctx context.Context, t *store.Transaction) (fresh int, err error) {
	ctx, cancel := context.WithTimeout(ctx, as.cfg.HoldFor)
	defer cancel()
	logged, began := false, time.Now()
	defer func() {
		if logged {
			as.metrics.holdSeconds.Observe(time.Since(began).Seconds())
		}
	}()
	for {
		fresh, err := as.tryTakeIn(ctx, t)
		switch {
		case err == nil || errors.Is(err, errStopped):
			return fresh, err
		case isFinal(err):
			as.setFatal(err)
			return 0, err
		}
		if !logged {
			logged = true
			as.log.Warn().Err(err).Str("txn_id", t.ID).Dur("hold_for", as.cfg.HoldFor).Msg("A transaction is held back")
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-as.quit:
			return 0, errStopped
		case <-time.After(holdPause):
		}
	}
}

func (as *AppService) tryTakeIn(ctx context.Context, t *store.Transaction) (fresh int, err error) {
	if err := as.running(); err != nil {
		return 0, err
	}
	if len(t.Elements) == 0 && len(t.Dead) == 0 {
		return 0, nil
	}
	if waiting, _ := as.lanes.Len(); waiting >= as.cfg.BacklogLimit && len(t.Elements) > 0 {
		return 0, fmt.Errorf("%w: %d events wait", errBacklog, waiting)
	}
	var taken atomic.Int64 // the commit may outlive ctx
	begin := time.Now()
	redacted := as.redacted(t)
	for i := range t.Elements {
		if el := &t.Elements[i]; el.State {
			el.AtOnce = as.roomChange(newEvent(*el))
		}
	}
	err = within(ctx, func() error {
		return as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error {
			refs, err := tx.Ingest(t)
			if err != nil {
				return err
			}
			for _, effect := range redacted {
				if err := effect(tx); err != nil {
					return err
				}
			}
			tx.AfterCommit(func() {
				for _, lane := range refs {
					taken.Add(int64(len(lane.Refs)))
				}
				begin := time.Now()
				defer func() { as.metrics.handSeconds.Observe(time.Since(begin).Seconds()) }()
				as.lanes.AddAll(func(yield func(string, []store.Ref) bool) {
					for _, lane := range refs {
						if !yield(lane.Lane, lane.Refs) {
							return
						}
					}
				})
				for i := range t.Dead {
					if t.Dead[i].ID != 0 { // else it was buried before
						as.metrics.dead(1)
					}
				}
			})
			return nil
		})
	})
	if err != nil {
		return 0, fmt.Errorf("store transaction %s: %w", t.ID, err)
	}
	as.metrics.commitSeconds.Observe(time.Since(begin).Seconds())
	return int(taken.Load()), nil
}

// redacted is what the handler wants done about the redactions of a transaction at once. One that makes it panic has its turn in the lane, where that is buried:
// here the homeserver would send it again for ever.
func (as *AppService) redacted(t *store.Transaction) (effects []Effect) {
	handler, ok := as.cfg.Handler.(RedactionHandler)
	if !ok {
		return nil
	}
	defer func() {
		if cause := recover(); cause != nil {
			as.log.Error().Interface("cause", cause).Str("txn_id", t.ID).Msg("A redaction makes the bridge panic; it is handled in its turn")
		}
	}()
	for i := range t.Elements {
		el := &t.Elements[i]
		if el.Kind != store.KindPDU || !bytes.Contains(el.Raw, []byte(event.EventRedaction.Type)) {
			continue
		}
		if ev := newEvent(*el); ev.Type == event.EventRedaction.Type {
			effects = append(effects, handler.Redacted(ev)...)
		}
	}
	return effects
}

// within ends with ctx, whether or not do has ended. A commit that has begun cannot be called back; when it succeeds after
// its transaction was refused, that is only one more transaction whose answer was lost.
func within(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isFinal says whether an error of the store stays for as long as this process lives.
func isFinal(err error) bool {
	return errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrUnknownOutcome) || errors.Is(err, errStopped)
}
