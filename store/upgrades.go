package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/crypto/sql_store_upgrade"
)

//go:embed upgrades/*.sql
var upgradeFiles embed.FS

// versionTable is our own, so that mautrix's stores, which bring theirs, can live in the same database.
const versionTable = "trestle_version"

func upgradeTable() dbutil.UpgradeTable {
	return dbutil.BuildUpgradeTable().WithFSPath(upgradeFiles, "upgrades").Finish()
}

// upgrade brings the schema to the newest version. It is called while no other process writes.
func upgrade(ctx context.Context, db *sql.DB, driver string) error {
	wrapped, err := dbutil.NewWithDB(db, driver)
	if err != nil {
		return fmt.Errorf("preparing the schema: %w", err)
	}
	wrapped.VersionTable = versionTable
	wrapped.UpgradeTable = upgradeTable()
	if err = wrapped.Upgrade(ctx); err != nil {
		return fmt.Errorf("bringing the schema up to date: %w", err)
	}
	// The tables of mautrix's crypto store, by its own account: see [Store.Foreign].
	keys := wrapped.Child(sql_store_upgrade.VersionTableName, sql_store_upgrade.Table, nil)
	if err = keys.Upgrade(ctx); err != nil {
		return fmt.Errorf("bringing the schema of the encryption keys up to date: %w", err)
	}
	for _, index := range []string{
		`CREATE INDEX IF NOT EXISTS trestle_outbound_session_room ON crypto_megolm_outbound_session (room_id)`,
		`CREATE INDEX IF NOT EXISTS trestle_inbound_session_user ON crypto_megolm_inbound_session (source_user, account_id)`,
		`CREATE INDEX IF NOT EXISTS trestle_inbound_session_maker ON crypto_megolm_inbound_session (sender_key, received_at)`,
		`CREATE INDEX IF NOT EXISTS trestle_olm_session_key ON crypto_olm_session (sender_key)`,
		`CREATE INDEX IF NOT EXISTS trestle_device_key ON crypto_device (identity_key)`,
		`CREATE INDEX IF NOT EXISTS trestle_outdated_user ON crypto_tracked_user (user_id) WHERE devices_outdated = true`,
	} {
		if _, err = keys.Exec(ctx, index); err != nil {
			return fmt.Errorf("making an index of the encryption keys: %w", err)
		}
	}
	return nil
}
