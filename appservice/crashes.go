package appservice

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/trestle-bridge/trestle/store"
)

// crashCause is the cause of an attempt that the end of the process ended; the number of such in a row follows.
const crashCause = "the process ended while this was under way; in a row: "

func crashes(cause string) int {
	text, ok := strings.CutPrefix(cause, crashCause)
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(text)
	return n
}

// countCrashes writes down that the heads of some lanes were under way when the last process ended, before anything is
// tried again: an event that ends the process each time must not do so for ever. They stay in doubt.
func (as *AppService) countCrashes(ctx context.Context, doubted []store.LaneRefs) error {
	if len(doubted) == 0 {
		return nil
	}
	err := as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error {
		for _, r := range doubted {
			cause := crashCause + strconv.Itoa(as.heads.get(r.Lane).crashes)
			if err := tx.Attempt(r.Lane, r.Refs[0], cause, r.NextAt); err != nil {
				return err
			}
			if err := tx.Doubt(r.Lane, r.Refs[0]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("count the attempts that the end of the last process ended: %w", err)
	}
	return nil
}
