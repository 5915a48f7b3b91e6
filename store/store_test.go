package store_test

import (
	"testing"

	"github.com/trestle-bridge/trestle/store/storetest"
)

func TestStore_SQLite(t *testing.T) { storetest.Run(t, storetest.SQLite) }

func TestStore_PostgreSQL(t *testing.T) { storetest.Run(t, storetest.PostgresServer(t)) }
