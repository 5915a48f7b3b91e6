package e2e

import (
	"testing"

	"github.com/trestle-bridge/trestle/store/storetest"
)

// StartPostgres starts a PostgreSQL server that ends with the test, and gives a function that makes empty databases on
// it. Its collation is C, which Synapse insists on.
func StartPostgres(tb testing.TB) (fresh func() string) {
	tb.Helper()
	// For the store's own tests a missing PostgreSQL is a reason to skip; here it is one to fail.
	defer func() {
		if tb.Skipped() {
			tb.Errorf("PostgreSQL is not installed, and this test needs it: run `e2e/install.sh postgres` as root")
		}
	}()
	server := storetest.PostgresServer(tb)
	return func() string { return server(tb) }
}
