package bridge

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/store"
)

func TestEnd_GoroutineThatWaitsForTheStore_IsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "s.db"), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b := &Bridge{store: s, log: zerolog.Nop()}
		b.goroutine(func() {
			for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(time.Second) {
				err := s.Commit(context.Background(), s.Epoch(), func(*store.Tx) error { return nil })
				if errors.Is(err, store.ErrClosed) {
					return
				}
			}
			t.Error("the store was not closed")
		})
		b.end(func() {})
	})
}
