package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// An event is taken in, worked on, and finished together with its effect.
func Example() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "store-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	s, err := store.Open(ctx, "sqlite:"+filepath.Join(folder, "bridge.db"), store.Options{})
	if err != nil {
		panic(err)
	}
	defer s.Close()

	var lanes []store.LaneRefs
	err = s.Commit(ctx, s.Epoch(), func(tx *store.Tx) (err error) {
		lanes, err = tx.Ingest(&store.Transaction{ID: "1", Received: time.Now(), Elements: []store.Element{
			{Kind: store.KindPDU, Lane: "!room:example.org", Key: "$event", Raw: []byte(`{"event_id":"$event"}`)},
		}})
		return err
	})
	if err != nil {
		panic(err)
	}
	for _, lane := range lanes {
		for _, ref := range lane.Refs {
			e, err := s.Element(ctx, ref)
			if err != nil {
				panic(err)
			}
			fmt.Println("working on", e.Key, "in", e.Lane)
			err = s.Commit(ctx, s.Epoch(), func(tx *store.Tx) error {
				if _, err := tx.Enqueue(&store.Outgoing{Lane: e.Lane, Key: "reply to " + e.Key, Op: "message"}); err != nil {
					return err
				}
				return tx.Finish(lane.Lane, ref)
			})
			if err != nil {
				panic(err)
			}
		}
	}
	stats, err := s.InboxStats(ctx)
	fmt.Println("rows left:", stats.Rows, err)
	// Output:
	// working on $event in !room:example.org
	// rows left: 0 <nil>
}
