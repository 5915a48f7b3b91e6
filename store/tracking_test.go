package store_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestIngest_MoreRowsThanAreTracked_StaysInBoundsAndFinishesAll(t *testing.T) {
	s := storetest.New(t)
	const most = 10
	var lanes []store.LaneRefs
	tracked := 0
	for i := range 5 * most {
		storetest.Commit(t, s, func(tx *store.Tx) error {
			tx.TrackRows(most)
			refs, err := tx.Ingest(&store.Transaction{Elements: []store.Element{{Kind: store.KindPDU, Lane: "!a", Key: fmt.Sprint("$", i), Raw: []byte("{}")}}})
			lanes = append(lanes, refs...)
			tracked = max(tracked, tx.TrackRows(most))
			return err
		})
	}
	if tracked > most {
		t.Errorf("%d rows were tracked, want %d at most", tracked, most)
	}
	for _, lane := range lanes {
		storetest.Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lane.Refs[0]) })
	}
	if st, err := s.InboxStats(context.Background()); err != nil || st.Rows != 0 {
		t.Errorf("%d rows are left, %v", st.Rows, err)
	}
}
