package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"

	"go.mau.fi/util/dbutil"
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
	return nil
}
