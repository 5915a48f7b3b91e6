package main

// A mutant is the code with one guard less.
type mutant struct {
	name     string
	file     string // from the root of the module
	old, new string // old stands in the file once
	pkg      string // of the test, from the root of the module
	test     string // the name of a test, with subtests after slashes
}

var mutants = []mutant{
	{
		"events are de-duplicated", "store/ingest.go",
		`if e.Key != "" && !claim(hashKey(byte(e.Kind), e.Key)) && !e.Again {`,
		`if e.Key != "" && !claim(hashKey(byte(e.Kind), e.Key)) && false {`,
		"appservice", "TestA23_SameIDSameBody_HandlesNothingTwice",
	}, {
		"what was seen is known after a restart", "store/open.go",
		`return doing(w.loadSeen(ctx, lastSeen), "reading the events seen")`,
		`return nil`,
		"appservice", "TestA23_RepeatedAfterARestart_HandlesNothingTwice",
	}, {
		"what was rolled back is not remembered", "store/ingest.go",
		`tx.undo(func() { w.seen.forget(hashes) })`,
		`tx.undo(func() {})`,
		"store", "TestStore_SQLite/Ingest_RolledBack_IsNotRemembered",
	}, {
		"what is inert is known from then on", "store/ingest.go",
		`			claim(hashKey(byte(e.Kind), e.Key))
			continue`,
		`			continue`,
		"store", "TestStore_SQLite/Ingest_InertElement_IsKnownAndNobodyIsGivenIt",
	}, {
		"what has been overtaken is inert", "store/ingest.go",
		`if e.Inert || slices.ContainsFunc(`,
		`if e.Inert || false && slices.ContainsFunc(`,
		"appservice", "TestCatchUp_NewerStateHasCome_TheOlderIsHandledNeitherNowNorLate",
	}, {
		"a message of the past that was redacted is inert", "appservice/catchup.go",
		`inert[string(ev.ID)] = len(ev.Unsigned.RedactedBecause) > 0`,
		`inert[string(ev.ID)] = false`,
		"appservice", "TestCatchUp_AMessageIsRedacted_NeitherNowNorLateIsItHandled",
	}, {
		"a room's past is read to what was known before", "appservice/catchup.go",
		`if ev.sight == store.SeenBefore {`,
		`if ev.sight != 0 {`,
		"appservice", "TestCatchUp_SomethingLaterHasCome_WhatIsMissingComesAllTheSame",
	}, {
		"of a room in whose past nothing is known nothing is taken", "appservice/catchup.go",
		`	return nil, tooMuch(past, since)
}

func`,
		`	return past, nil
}

func`,
		"appservice", "TestCatchUp_NothingIsKnownOfTheNewest1920_NothingIsTaken",
	}, {
		"what happened before the bridge came is not taken", "appservice/catchup.go",
		`if past[n].sight != 0 || past[n].before {`,
		`if past[n].sight != 0 {`,
		"appservice", "TestCatchUp_PeopleSpokeJustBeforeTheBridgeCame_ItBeginsWithTheBridge",
	}, {
		"the past of a silent room is left alone", "appservice/catchup.go",
		`if len(old) == catchUpEarlier {`,
		`if len(old) == 1<<40 {`,
		"appservice", "TestCatchUp_ARoomWasSilentForLong_ItTakesOneSmallRequest",
	}, {
		"another server's clock ends no reading", "appservice/catchup.go",
		`case (ev.dim || ev.sight == 0) && strings.HasSuffix(string(ev.Sender), i.as.lapses.local):`,
		`case (ev.dim || ev.sight == 0) && strings.HasSuffix(string(ev.Sender), ""):`,
		"appservice", "TestCatchUp_AnotherServerDatesItsEventsLongAgo_WhatIsBehindThemComes",
	}, {
		"names are read exactly in a history", "appservice/catchup.go",
		`_ = jsonv2.Unmarshal(raw, ev, exactNames)`,
		`_ = jsonv2.Unmarshal(raw, ev, exactNames, jsonv2.MatchCaseInsensitiveNames(true))`,
		"appservice", "TestCatchUp_NamesInAnotherCase_SayNothing",
	}, {
		"an invitation that was taken is no sign that the bridge was there", "appservice/catchup_ours.go",
		`case !i.as.isOwn(user):`,
		`case !i.as.isOwn(user) || ev.Content.Membership == "invite":`,
		"appservice", "TestCatchUp_PeopleSpokeBetweenTheInvitationAndTheComing_ItBeginsWithTheBridge",
	}, {
		"of a room's past no more is held than there is room for", "appservice/catchup.go",
		`size > catchUpBytes {`,
		`size > 1<<40 {`,
		"appservice", "TestCatchUp_ItIsMoreThan16MiB_NothingIsTaken",
	}, {
		"a transaction comes after what is read of its room", "appservice/intake.go",
		`as.readings.wait(r.Context(), t)`,
		`_ = as.readings.wait`,
		"appservice", "TestCatchUp_ATransactionComesMeanwhile_ItComesAfterWhatIsRead",
	}, {
		"a transaction does not wait for ever for a reading", "appservice/reading.go",
		`context.WithTimeout(ctx, readingHold)`,
		`context.WithCancel(ctx)`,
		"appservice", "TestReading_ItDoesNotEnd_ATransactionWaitsFiveSeconds",
	}, {
		"a lapse that nobody has looked at outlives the process", "appservice/lapse.go",
		`if err := as.putLapse(ctx, since); err != nil`,
		`if err := error(nil); err != nil`,
		"appservice", "TestLapse_TheProcessEndsBeforeAnybodyHasLooked_TheNextIsToldFromTheSameTimeOn",
	}, {
		"nobody looks while the homeserver sends what it has kept", "appservice/settling.go",
		`quiet := s.underWay == 0 && time.Since(s.moved) >= s.quiet`,
		`quiet := true`,
		"appservice", "TestSettling_TheHomeserverIsBehind_NobodyLooksBeforeItHasSentAll",
	}, {
		"nobody looks while what was refused has not come again", "appservice/settling.go",
		`return !s.refused && (`,
		`return (`,
		"appservice", "TestSettling_TheLastTransactionWasRefused_NobodyLooksBeforeItHasComeAgain",
	}, {
		"of a homeserver that always sends something all has come when it sends what is new", "appservice/settling.go",
		`(quiet || !s.newest.Before(reached))`,
		`(quiet)`,
		"appservice", "TestSettling_TransactionsComeAllTheTime_SomebodyLooksWhenOneBringsWhatIsNew",
	}, {
		"nobody looks before the homeserver reaches the bridge", "appservice/settling.go",
		`if err != nil {
			if !sleep(ctx, backoff(attempt))`,
		`if false {
			if !sleep(ctx, backoff(attempt))`,
		"appservice", "TestSettling_TheHomeserverDoesNotReachTheBridge_NobodyLooks",
	}, {
		"a room that cannot be read keeps no other waiting", "bridge/catchup.go",
		`case appservice.IsPermanent(err) || refused[room] == catchUpRounds:`,
		`case appservice.IsPermanent(err) || true:`,
		"bridgetest", "TestForgets_ARoomCannotBeReadAtFirst_TheOthersAreReadAndItAfterThem",
	}, {
		"no room is given up because the own store fails", "bridge/catchup.go",
		`if ofHomeserver(err) {
				refused[room]++`,
		`if err != nil {
				refused[room]++`,
		"bridge", "TestCatchUp_OwnStoreFails_NoRoomIsGivenUp",
	}, {
		"what came and is forgotten is not taken again", "appservice/catchup.go",
		`ev.sight == 0 && remembered.After(since) && `,
		`false && `,
		"appservice", "TestCatchUp_MoreHasComeThanIsRemembered_NothingIsTakenAgain",
	}, {
		"nobody is held until the end of a split", "example-ircbridge/irc/sides.go",
		`if st.doubts() && time.Since(st.since) >= asideAfter {`,
		`if false {`,
		"example-ircbridge/irc", "TestCrew_ComesWhileTheOtherIsOnAnotherSideOfASplit_BothSidesAreDelivered",
	}, {
		"who is listed from an earlier life is not waited for", "example-ircbridge/irc/crew.go",
		`before != st && before.sat < st.entered && `,
		`before != st && `,
		"example-ircbridge/irc", "TestCrew_WhoWasThereLeavesAndComesAgainBeforeTheListIsRead_WhatWasSaidMeanwhileIsDelivered",
	}, {
		"200 comes after the commit", "appservice/intake.go",
		`if err := as.takeIn(r.Context(), t); err != nil {`,
		`ctx := context.WithoutCancel(r.Context()); go func() { _ = as.takeIn(ctx, t) }(); if err := error(nil); err != nil {`,
		"appservice", "TestIntake_StoreBusy_AcknowledgesOnlyAfterTheCommit",
	}, {
		"hand-over comes after the commit", "appservice/intake.go",
		`tx.AfterCommit(func() {`,
		`func(do func()) { do() }(func() {`,
		"appservice", "TestIntake_CommitFails_HandsNothingOver",
	}, {
		"the body is bounded", "appservice/intake.go",
		`reader := http.MaxBytesReader(w, r.Body, as.cfg.MaxBody)`,
		`reader := http.MaxBytesReader(w, r.Body, 1<<40); r.ContentLength = -1`,
		"appservice", "TestIntake_BodyOverTheLimit_Is413AndNotStored",
	}, {
		"the backlog is bounded", "appservice/intake.go",
		`waiting >= as.cfg.BacklogLimit && len(t.Elements) > 0 {`,
		`waiting >= as.cfg.BacklogLimit && len(t.Elements) > 1<<40 {`,
		"appservice", "TestIntake_BacklogAtItsLimit_IsHeldAndThenRefusedAndRecovers",
	}, {
		"the token must be right", "appservice/router.go",
		`return subtle.ConstantTimeCompare(sum[:], as.hsTokenSum[:]) == 1`,
		`return subtle.ConstantTimeCompare(sum[:], as.hsTokenSum[:]) == 1 || true`,
		"appservice", "TestA22_HSToken_EveryCombinationOfHeaderAndQuery",
	}, {
		"typing of own users is left out", "appservice/ephemeral.go",
		`return len(user) > maxID || e.own(user) })`,
		`return len(user) > maxID })`,
		"appservice", "TestA13_OwnUsers_AreFilteredBeforeTheHandler",
	}, {
		"receipts of own users are left out", "appservice/ephemeral.go",
		`if !e.own(user) && max(`,
		`if max(`,
		"appservice", "TestA13_OwnUsers_AreFilteredBeforeTheHandler",
	}, {
		"private receipts are left out", "appservice/ephemeral.go",
		`range byType["m.read"] {`,
		`range byType["m.read.private"] {`,
		"appservice", "TestA15_PrivateReceipts_AreNeverHandedOver",
	}, {
		"the mark of doubt is made", "store/progress.go",
		`return tx.mark("marking in doubt", lane, ref, func(t *trouble) { t.doubt = int64(ref.Pos) })`,
		`return nil`,
		"appservice", "TestDoubt_CleanStopWithoutKnowing_StaysInDoubt",
	}, {
		"an event that ends every process is buried", "appservice/heads.go",
		`return h.crashes >= maxCrashes ||`,
		`return h.crashes >= 1<<30 ||`,
		"appservice", "TestDoubt_EveryProcessEndsOverIt_IsBuriedAfterFive",
	}, {
		"an event in doubt is not sent again", "bridge/settle.go",
		`if b.guarantee() == AtMostOnce {`,
		`if false && b.guarantee() == AtMostOnce {`,
		"bridge", "TestSend_BrokenOffAfterTheMark_IsNotSentAgainAndItsSenderKnows",
	}, {
		"what may be there is looked for", "bridge/unanswered.go",
		`found, err := sender.FindSent(`,
		`return "", nil; found, err := sender.FindSent(`,
		"bridge", "TestInDoubt_AnswerLostWithoutADeviceAndNoEcho_TheHistorySettlesIt",
	}, {
		"effects are committed with the progress", "appservice/worker.go",
		`if err := tx.Finish(b.lane, s.ref); err != nil {
				return &effectError{i, err}`,
		`if err := error(nil); err != nil {
				return &effectError{i, err}`,
		"appservice", "TestWorker_Effects_AreCommittedWithTheProgress",
	}, {
		"a process that lost the store writes nothing", "store/writer.go",
		`if r.epoch != w.epoch {`,
		`if false && r.epoch != w.epoch {`,
		"store", "TestStore_SQLite/Commit_WrongEpoch_IsFenced",
	}, {
		"a failing job is undone", "store/writer.go",
		`case wrote:
		w.redo()`,
		`case wrote && false:
		w.redo()`,
		"store", "TestStore_SQLite/Commit_FailingJob_DoesNotHarmTheOthers",
	}, {
		"a second process is kept out", "store/lock.go",
		`if !taken {`,
		`if false && !taken {`,
		"store", "TestOpen_SecondProcessOnSQLite_IsInUse",
	}, {
		"a driver that syncs less is refused", "store/sqlite.go",
		`if level < 2 {`,
		`if level < 0 {`,
		"store", "TestOpen_SQLiteIsDurable_AndLessIsRefused",
	}, {
		"a room once encrypted stays so", "store/rooms.go",
		`DO UPDATE SET encrypted = 1 WHERE room.encrypted = 0 AND excluded.encrypted = 1`,
		`DO UPDATE SET encrypted = excluded.encrypted`,
		"store", "TestStore_SQLite/Encrypted_OnceTrue_StaysTrue",
	}, {
		"a room that changes is not answered from memory", "store/rooms.go",
		`	tx.w.store.rooms.change(room)
`,
		``,
		"store", "TestRoomMemory_WhateverChangesARoom_IsReadAfterItsCommit",
	}, {
		"what was read before a room changed is not remembered", "store/roommemory.go",
		`changes || asked != m.ended {`,
		`changes && false {`,
		"store", "TestRoomMemory_AnAnswerThatAChangeHasOvertaken_IsNotKept",
	}, {
		"a room that is undone is remembered again", "store/writer.go",
		`	w.store.rooms.end()
`,
		``,
		"store", "TestRoomMemory_AChangeThatIsUndone_LeavesTheRoomToBeRemembered",
	}, {
		"the room is marked with the event that encrypts it", "store/ingest.go",
		`for _, room := range t.EncryptedRooms {`,
		`for _, room := range t.EncryptedRooms[:0] {`,
		"appservice", "TestIntake_EncryptionEvent_MarksTheRoomInTheSameCommit",
	}, {
		"a token in a URL is noticed", "bridgetest/router.go",
		`hs.noteLeak(r)`,
		`_ = r`,
		"bridgetest", "TestF1_TokenInAnyURL_FailsTheTestWhateverBecameOfTheRequest",
	}, {
		"the MAC of a link is compared", "proxy/mac.go",
		`return hmac.Equal(want[:], m[:])`,
		`return hmac.Equal(want[:], want[:]) || m == want`,
		"proxy", "TestProxy02_MAC_AnyBitOfAnyFieldFlipped_DoesNotHold",
	}, {
		"commits are synced", "store/sqlite_cgo.go",
		`_synchronous=FULL`,
		`_synchronous=OFF`,
		"store", "TestOpen_SQLiteIsDurable_AndLessIsRefused",
	}, {
		"a request names its device", "appservice/intent.go",
		`SetAppServiceDeviceID: device != "",`,
		`SetAppServiceDeviceID: false,`,
		"appservice", "TestE1_E4_E10_ActingAsADevice_NamesItUnderBothNamesBesideTheUser",
	},
}

// fundamental are those on which the promise stands: .ci/run tries them.
var fundamental = []string{
	"events are de-duplicated", "commits are synced", "the mark of doubt is made", "a request names its device", "the MAC of a link is compared",
}

// simulated are guards that the simulation must miss too: it knows none of them, and only sees what people see.
var simulated = []mutant{
	{
		"simulation: events are de-duplicated", "store/ingest.go",
		`if e.Key != "" && !claim(hashKey(byte(e.Kind), e.Key)) && !e.Again {`,
		`if e.Key != "" && !claim(hashKey(byte(e.Kind), e.Key)) && false {`,
		"bench/simulation", simulation,
	}, {
		"simulation: an event in doubt is not sent again", "bridge/settle.go",
		`if b.guarantee() == AtMostOnce {`,
		`if false && b.guarantee() == AtMostOnce {`,
		"bench/simulation", simulation,
	}, {
		"simulation: at least once, what was answered is not sent again", "bridge/to_network.go",
		`	case err == nil:
		b.setOffline(false)`,
		`	case err == nil && (b.guarantee() == AtMostOnce || ev.Attempts > 0):
		b.setOffline(false)`,
		"bench/simulation", simulation,
	}, {
		"simulation: the mark of doubt is made", "store/progress.go",
		`return tx.mark("marking in doubt", lane, ref, func(t *trouble) { t.doubt = int64(ref.Pos) })`,
		`return nil`,
		"bench/simulation", simulation,
	}, {
		"simulation: the transaction ID is derived", "bridge/outbox.go",
		`eventID, err := sender.SendMessage(ctx, o.Room, evType, withOutboxID(content, row.TxnID), row.TxnID)`,
		`eventID, err := sender.SendMessage(ctx, o.Room, evType, withOutboxID(content, row.TxnID), assignID())`,
		"bench/simulation", simulation,
	}, {
		"simulation: what the network gives again is known by its ID", "bridge/redact.go",
		`return "message\x00" + p.Channel + "\x00" + remoteID`,
		`return ""`,
		"bench/simulation", simulation,
	}, {
		"simulation: a request names its device", "appservice/intent.go",
		`SetAppServiceDeviceID: device != "",`,
		`SetAppServiceDeviceID: false,`,
		"bench/simulation", simulation,
	}, {
		"simulation: 200 comes after the commit", "appservice/intake.go",
		`if err := as.takeIn(r.Context(), t); err != nil {`,
		`ctx := context.WithoutCancel(r.Context()); go func() { _ = as.takeIn(ctx, t) }(); if err := error(nil); err != nil {`,
		"bench/simulation", simulation,
	}, {
		"simulation: Deliver returns after the commit", "bridge/to_matrix.go",
		`err = b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		if !b.portals.has(p) {`,
		`go func() { _ = b.store.Commit(context.WithoutCancel(ctx), b.store.Epoch(), func(tx *store.Tx) error { for _, row := range rows { _ = b.enqueue(tx, row) }; return nil }) }()
	err = (func(f func(tx *store.Tx) error) error { return nil })(func(tx *store.Tx) error {
		if !b.portals.has(p) {`,
		"bench/simulation", simulation,
	}, {
		"simulation: what waits is found at the start", "bridge/bridge.go",
		`		found(lane, row)
`,
		`		_ = found
`,
		"bench/simulation", simulation,
	}, {
		"simulation: who leaves has spoken before", "bridge/comings.go",
		`if last, more := c.said[room]; more && place == 0 {`,
		`if last, more := c.said[room]; more && place == 0 && last < 0 {`,
		"bench/simulation", simulation,
	}, {
		"simulation: who speaks has come and gone before", "bridge/outbox.go",
		`if o.User != nil && b.comings.wait(o.Room, b.actor(o), row.ID) {`,
		`if false && b.comings.wait(o.Room, b.actor(o), row.ID) {`,
		"bench/simulation", simulation,
	}, {
		"simulation: a list undoes nothing from after it", "bridge/ghost_members.go",
		`if b.comings.movesAfter(o.Room, b.actor(change), row.ID) {`,
		`if false {`,
		"bench/simulation", simulation,
	}, {
		"simulation: effects are committed with the progress", "appservice/worker.go",
		`if err := tx.Finish(b.lane, s.ref); err != nil {
				return &effectError{i, err}`,
		`if err := error(nil); err != nil {
				return &effectError{i, err}`,
		"bench/simulation", simulation,
	}, {
		"simulation: who wrote a dead letter is told", "bridge/to_network.go",
		`return b.showUndelivered(ev, cause)
}`,
		`return nil
}`,
		"bench/simulation", simulation,
	},
}

const simulation = "TestSimulation_WhateverGoesWrong_NothingIsLostDoubledOrReordered"
