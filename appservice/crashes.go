package appservice

import (
	"context"
	"fmt"

	"github.com/trestle-bridge/trestle/store"
)

// crashCause is the cause of an attempt that the end of the process ended: how many in a row, and in how many of these
// nothing else was under way.
const crashCause = "the process ended while this was under way; in a row: %d, alone: %d"

func crashes(cause string) (inARow, alone int) {
	if n, _ := fmt.Sscanf(cause, crashCause, &inARow, &alone); n == 0 {
		return 0, 0
	}
	return inARow, alone
}

// countCrashes writes down that the heads of some lanes were under way when the last process ended, before anything is
// tried again: an event that ends the process each time must not do so for ever. What was in doubt stays so. In the same
// commit goes what this process begins with.
func (as *AppService) countCrashes(ctx context.Context, crashed []store.LaneRefs, begin Effect) error {
	err := as.store.Commit(ctx, as.epoch, func(tx *store.Tx) error {
		for _, r := range crashed {
			h := as.heads.get(r.Lane)
			if err := tx.Attempt(r.Lane, r.Refs[0], fmt.Sprintf(crashCause, h.crashes, h.alone), r.NextAt); err != nil {
				return err
			}
			if !r.Doubt {
				continue
			}
			if err := tx.Doubt(r.Lane, r.Refs[0]); err != nil {
				return err
			}
		}
		return begin(tx)
	})
	if err != nil {
		return fmt.Errorf("write down how the last process ended: %w", err)
	}
	return nil
}
