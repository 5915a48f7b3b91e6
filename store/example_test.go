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

// Another process looks at the dead letters, and asks for one to be replayed, while the store is held.
func ExampleVisit() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	uri := "sqlite:" + filepath.Join(folder, "bridge.db")
	s, err := store.Open(ctx, uri, store.Options{})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	err = s.Commit(ctx, s.Epoch(), func(tx *store.Tx) error {
		return tx.Bury(&store.DeadLetter{Kind: "pdu", Key: "$event", Cause: "the network refused it"})
	})
	if err != nil {
		panic(err)
	}

	v, err := store.Visit(ctx, uri)
	if err != nil {
		panic(err)
	}
	defer v.Close()
	letters, err := v.DeadLetters(ctx, store.LetterQuery{Newest: true})
	if err != nil {
		panic(err)
	}
	for _, d := range letters {
		fmt.Println(d.ID, d.Key, d.Cause)
	}
	if _, err = v.Request(ctx, store.ActionReplay, letters[0].ID); err != nil {
		panic(err)
	}

	open, err := s.OpenRequests(ctx, 10) // the process that holds the store asks every second
	if err != nil {
		panic(err)
	}
	fmt.Println(open[0].Action, open[0].Letter)
	// Output:
	// 1 $event the network refused it
	// replay 1
}
