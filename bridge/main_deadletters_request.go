package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// letterRequests asks the bridge, through the database, to do something with dead letters, and follows what becomes of
// them. The bridge may be running or not; the store is taken over in neither case.
type letterRequests struct {
	p       *program
	v       *store.Visitor
	action  string
	wait    time.Duration
	letters []store.DeadLetter // without bodies
	tally   map[outcome]int
}

// outcome is what became of one letter, in a word for the summary.
type outcome string

const (
	outcomeDone    outcome = "done"
	outcomeDropped outcome = "dropped"
	outcomeLane    outcome = "waiting in their lanes"
	outcomeBridge  outcome = "waiting for the bridge"
	outcomeFailed  outcome = "failed again"
	outcomeMissing outcome = "not there"
)

var outcomes = []outcome{outcomeDone, outcomeDropped, outcomeLane, outcomeBridge, outcomeFailed, outcomeMissing}

const (
	letterPage = 2000
	// letterPoll is how often the command looks for news, and lettersAtOnce for how many letters.
	letterPoll    = 100 * time.Millisecond
	lettersAtOnce = 100
	// fewLetters: of more, all but those that failed are only counted.
	fewLetters = 20
)

// find reads which letters are meant: ids, or without any those of the filter.
func (r *letterRequests) find(ctx context.Context, ids []int64, filter letterFilter) error {
	r.tally = map[outcome]int{}
	for _, id := range ids {
		found, err := r.v.DeadLetters(ctx, store.LetterQuery{After: id - 1, Limit: 1})
		if err != nil {
			return err
		}
		if len(found) == 0 || found[0].ID != id {
			r.tell(id, outcomeMissing, noSuchLetter(id))
			continue
		}
		r.letters = append(r.letters, found[0])
	}
	if len(ids) > 0 {
		return nil
	}
	q := filter.query()
	for q.Limit = letterPage; ; {
		found, err := r.v.DeadLetters(ctx, q)
		if err != nil {
			return err
		}
		r.letters = append(r.letters, found...)
		if len(found) < letterPage {
			return nil
		}
		q.After = found[len(found)-1].ID
	}
}

func (r *letterRequests) run(ctx context.Context) (status int, err error) {
	total := len(r.letters) + r.tally[outcomeMissing]
	r.warn()
	for rest := r.letters; len(rest) > 0; rest = rest[min(letterPage, len(rest)):] {
		var ids []int64
		for _, letter := range rest[:min(letterPage, len(rest))] {
			ids = append(ids, letter.ID)
		}
		if _, err := r.v.Request(ctx, r.action, ids...); err != nil {
			return 0, err
		}
	}
	if err := r.follow(ctx); err != nil {
		return 0, err
	}
	if total > 1 {
		var parts []string
		for _, o := range outcomes {
			if n := r.tally[o]; n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, o))
			}
		}
		fmt.Fprintf(r.p.stdout, "%s: %s\n", count(total, "dead letter"), strings.Join(parts, ", "))
	}
	if r.tally[outcomeFailed]+r.tally[outcomeMissing] > 0 {
		return exitFailed, nil
	}
	return exitOK, nil
}

// warn says which letters may get through twice.
func (r *letterRequests) warn() {
	if r.action != store.ActionReplay {
		return
	}
	doubtful := 0
	for i := range r.letters {
		if !r.letters[i].Doubt {
			continue
		}
		if doubtful++; len(r.letters) <= fewLetters {
			fmt.Fprintf(r.p.stdout, "%d  note: %s\n", r.letters[i].ID, doubtText(&r.letters[i]))
		}
	}
	if doubtful > 0 && len(r.letters) > fewLetters {
		fmt.Fprintf(r.p.stdout, "note: %d of them may have arrived before, and are sent again\n", doubtful)
	}
}

// follow tells what becomes of the letters, until that is clear of all of them, or there is no news for a while.
func (r *letterRequests) follow(ctx context.Context) error {
	pending, deadline := r.letters, time.Now().Add(r.wait)
	for len(pending) > 0 {
		last := !time.Now().Before(deadline)
		var left []store.DeadLetter
		for i := range pending {
			if !last && i >= lettersAtOnce {
				left = append(left, pending[i:]...)
				break
			}
			o, text, settled, err := r.outcome(ctx, &pending[i])
			if err != nil {
				return err
			}
			if settled || last {
				r.tell(pending[i].ID, o, text)
			} else {
				left = append(left, pending[i])
			}
		}
		if len(left) < len(pending) {
			deadline = time.Now().Add(r.wait)
		}
		if pending = left; len(pending) > 0 {
			select {
			case <-time.After(letterPoll):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// outcome says what has become of a letter; settled, when there is no more to wait for.
func (r *letterRequests) outcome(ctx context.Context, letter *store.DeadLetter) (o outcome, text string, settled bool, err error) {
	answer, err := r.v.Answer(ctx, letter.ID)
	if errors.Is(err, store.ErrNotFound) {
		return outcomeMissing, noSuchLetter(letter.ID), true, nil
	} else if err != nil {
		return "", "", false, err
	}
	switch answer.Result {
	case "":
		return outcomeBridge, fmt.Sprintf("waits for the bridge, which did not take it up within %v: if it is not running, start it, and it does this first", r.wait), false, nil
	case store.ResultMissing:
		return outcomeMissing, noSuchLetter(letter.ID), true, nil
	case store.ResultDropped:
		return outcomeDropped, "dropped", true, nil
	case store.ResultRefused:
		return outcomeFailed, "failed again: " + answer.Cause, true, nil
	}
	fate, err := r.v.Fate(ctx, letter.Kind, answer)
	switch {
	case err != nil:
		return "", "", false, err
	case len(fate.Dead) > 0:
		return outcomeFailed, fmt.Sprintf("failed again, and is dead letter %d now: %s", fate.Dead[0].ID, fate.Dead[0].Cause), true, nil
	case fate.Waits && fate.Cause != "":
		return outcomeLane, "waits in its lane, and is tried again by itself: " + fate.Cause, true, nil
	case fate.Waits:
		return outcomeLane, "waits in its lane", false, nil
	case answer.Cause != "":
		return outcomeFailed, "done in part: " + answer.Cause, true, nil
	case answer.Went == 0:
		return outcomeDone, "done: everything in it had come in before", true, nil
	}
	return outcomeDone, "done", true, nil
}

// tell prints what became of one letter.
func (r *letterRequests) tell(id int64, o outcome, text string) {
	r.tally[o]++
	switch o {
	case outcomeFailed, outcomeMissing:
		fmt.Fprintf(r.p.stderr, "%d  %s\n", id, printable(text))
	default:
		if len(r.letters) <= fewLetters {
			fmt.Fprintf(r.p.stdout, "%d  %s\n", id, printable(text))
		}
	}
}
