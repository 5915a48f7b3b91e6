package main

// encrypted are guards of encryption; without the tag goolm there are none of their tests.
var encrypted = []mutant{
	{
		"keys: memory of a job that is undone is thrown away", "crypto/machine.go",
		`tx.OnRollback(m.discard)`,
		`tx.OnRollback(func() {})`,
		"crypto", "TestOlm_WriteThatFails_LeavesNothingOfTheMessage/later_session",
	}, {
		"keys: nothing leaves after a write has failed", "crypto/machine.go",
		`if err := op.settle(r.Context()); err != nil {`,
		`if err := op.settle(r.Context()); err != nil && false {`,
		"crypto", "TestSeal_SessionThatCannotBeStored_NothingIsSent",
	}, {
		"keys: an Olm message is known again", "crypto/olm.go",
		`} else if !seen.IsZero() {`,
		`} else if !seen.IsZero() && false {`,
		"crypto", "TestOlm_SameMessageAgain_ChangesNothing",
	}, {
		"keys: device keys are signed by their device", "crypto/olm.go",
		`string(device), p.Keys.Ed25519); err != nil || !ok {`,
		`string(device), p.Keys.Ed25519); (err != nil || !ok) && false {`,
		"crypto", "TestI3_DeviceKeysThatAreNotTheSenders_AreRefused",
	}, {
		"keys: an Olm message is for this user", "crypto/olm.go",
		`case p.Recipient != l.Client.UserID:`,
		`case p.Recipient != l.Client.UserID && false:`,
		"crypto", "TestOlm_PayloadThatIsNotForThisDevice_IsRefused",
	}, {
		"keys: a number of a session is used once", "crypto/keystore.go",
		`ok, err = store.TxOf(ctx).MessageRead(string(session), index, string(o.sender), string(ev), timestamp)`,
		`ok = true`,
		"crypto", "TestOpen_MessageUnderAnotherID_IsReplayed",
	}, {
		"keys: another pickle key is refused at the start", "crypto/crypto_goolm.go",
		`if err := c.tryPickleKey(ctx); err != nil {`,
		`if err := c.tryPickleKey(ctx); err != nil && false {`,
		"crypto", "TestNew_AnotherPickleKey_IsRefused_AndNothingIsLost",
	}, {
		"keys: an account of another device is refused", "crypto/machine.go",
		`own.SigningKey != signing || own.IdentityKey != identity) {`,
		`own.SigningKey != signing || own.IdentityKey != identity) && false {`,
		"crypto", "TestStore_KeysOfAnotherAccount_AreRefused_AndNothingIsLost",
	}, {
		"keys: own ghosts are not given keys that they do not need", "crypto/share.go",
		`case !c.as.Owns(user):`,
		`case true:`,
		"crypto", "TestShare_OwnGhosts_AreLeftOutButTheReader",
	}, {
		"keys: a database that was put back uses no room key again", "crypto/witness.go",
		`if err := tx.DropAllRoomKeys(); err != nil {`,
		`if err := error(nil); err != nil {`,
		"crypto", "TestStore_PutBackToAnOlderState_UsesNoKeyOfThenAgainAndIsRead",
	}, {
		"keys: nor an Olm session", "crypto/witness.go",
		`return tx.RetireOlmSessions()`,
		`return nil`,
		"crypto", "TestStore_PutBackToAnOlderState_UsesNoKeyOfThenAgainAndIsRead",
	}, {
		"keys: no key goes that a parked event waits for", "store/prunekeys.go",
		`(SELECT 1 FROM parked p WHERE p.room = room_id AND p.session = $2)`,
		`(SELECT 1 FROM parked p WHERE p.room = room_id AND p.session = $2 AND false)`,
		"store", "TestStore_SQLite/Prune_RoomKeys_GoAYearAfterTheirLastUseAndNeverWhileSomethingWaitsForThem",
	}, {
		"keys: which cross-signing keys the homeserver has is asked after a database was put back", "crypto/crosssign.go",
		`if c.ask || known.Sure != c.doubt {`,
		`if c.ask {`,
		"crypto", "TestStore_PutBackToBeforeAReset_IsSeenOfGhostsAsWell",
	}, {
		"keys: and of the bot at each start", "crypto/crosssign.go",
		`if c.ask || known.Sure != c.doubt {`,
		`if known.Sure != c.doubt {`,
		"crypto", "TestL3_HomeserverHasLostTheKeys_IsGivenTheSameAgain",
	}, {
		"keys: ghosts stand in for the bot of a Synapse", "crypto/open.go",
		`if isMissing(err) {`,
		`if isMissing(err) && false {`,
		"crypto", "TestK4_SynapseThatBringsNothing_AGhostStandsInForTheBot",
	}, {
		"keys: whose bot is not asked for", "crypto/sync.go",
		`if key.user == s.c.as.Bot().UserID() && !s.c.as.BotSyncs() {`,
		`if false {`,
		"crypto", "TestK4_SynapseThatBringsNothing_AGhostStandsInForTheBot",
	}, {
		"keys: an event is of the device whose key it was encrypted with", "crypto/trust_judge.go",
		`case device.SigningKey != session.SigningKey || device.IdentityKey != session.SenderKey:`,
		`case false:`,
		"crypto", "TestJudge_SessionWithAnotherEd25519KeyThanItsDevice_IsRefused",
	}, {
		"keys: a device that nobody vouches for is not read", "crypto/trust_judge.go",
		`case trust < least:`,
		`case trust < least && false:`,
		"crypto", "TestTrust_DeviceThatItsOwnerHasNotSigned_IsNeitherReadNorWrittenTo",
	}, {
		"keys: a key that was given before somebody came is not used", "crypto/share.go",
		`return g != nil && (tx.KeysDropped(g.members, string(g.room)) ||`,
		`return g != nil && (false ||`,
		"crypto", "TestShare_SomebodyComesWhileAKeyIsGiven_HasOneToo",
	}, {
		"keys: what was redacted before it came is passed over", "bridge/encryption.go",
		`	if isEmptied(ev) {`,
		`	if isEmptied(ev) && false {`,
		"bridge", "TestEncryption_RedactedBeforeItCame_IsPassedOver",
	},
}
