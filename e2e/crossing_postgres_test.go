package e2e

import "testing"

func TestCrossing_PostgreSQLStoreAndInspIRCd_EveryLineArrivesOnce(t *testing.T) {
	everyLine(t, CrossingOptions{IRC: StartInspIRCd, StorePostgres: StartPostgres(t)()})
}

func TestCrossing_PostgreSQLStoreAndNgIRCd_EveryLineArrivesOnce(t *testing.T) {
	everyLine(t, CrossingOptions{IRC: StartNgIRCd, StorePostgres: StartPostgres(t)()})
}

func TestCrossing_PostgreSQLForBridgeAndSynapse_EveryLineArrivesOnce(t *testing.T) {
	fresh := StartPostgres(t)
	everyLine(t, CrossingOptions{IRC: StartInspIRCd, StorePostgres: fresh(), SynapsePostgres: fresh()})
}

func TestSynapse_OnPostgreSQL_ServesAnAppserviceAndOutlivesAKill(t *testing.T) {
	checkSynapse(t, StartPostgres(t)())
}
