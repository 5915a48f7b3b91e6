package store_test

import (
	"context"
	"database/sql/driver"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

// away is a server that nobody reaches before a certain time; then it says that the transaction was committed.
type away struct{ until time.Time }

func (a away) Driver() driver.Driver { return nil }

func (a away) Connect(context.Context) (driver.Conn, error) {
	if time.Now().Before(a.until) {
		return nil, io.ErrUnexpectedEOF
	}
	return backAgain{}, nil
}

type backAgain struct{ driver.Conn }

func (backAgain) Close() error { return nil }

func (backAgain) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &committedRow{}, nil
}

type committedRow struct{ read bool }

func (*committedRow) Columns() []string { return []string{"status"} }
func (*committedRow) Close() error      { return nil }

func (r *committedRow) Next(into []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read, into[0] = true, "committed"
	return nil
}

func TestResolve_DatabaseAwayForAnHour_TellsWhatBecameOfTheCommitWhenItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		committed, err := store.ResolveWith(t.Context(), away{time.Now().Add(time.Hour)}, driver.ErrBadConn)
		if !committed || err != nil {
			t.Errorf("after an hour: %v, %v", committed, err)
		}
	})
}

func TestResolve_StoreClosesWhileTheDatabaseIsAway_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if committed, err := store.ResolveWith(ctx, away{time.Now().Add(time.Hour)}, driver.ErrBadConn); committed || err == nil {
			t.Errorf("nobody can know: %v, %v", committed, err)
		}
	})
}
