package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.mau.fi/util/dbutil"

	"github.com/trestle-bridge/trestle/store"
)

// longID makes a name as long as that of a key, with what is in one.
func longID(name string) string { return name + strings.Repeat("+", 42-len(name)) + "/" }

// keyNames are what is left in a table.
func keyNames(t *testing.T, f *dbutil.Database, query string) (out []string) {
	t.Helper()
	rows, err := f.Query(ctx(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.TrimRight(name, "+/ "))
	}
	return out
}

const (
	putRoomKey = `INSERT INTO crypto_megolm_inbound_session (account_id, session_id, sender_key, room_id, session, received_at) VALUES ($1, $2, $3, '!r', $4, $5)`
	putIndex   = `INSERT INTO crypto_message_index (session_id, "index", event_id, timestamp) VALUES ($1, $2, 'e', 1)`
	putRead    = `INSERT INTO message_read (session, number, sender, event, written) VALUES ($1, $2, '@eve:x', 'e', 1)`
	putSending = `INSERT INTO crypto_megolm_outbound_session (account_id, room_id, session_id, session, shared, max_messages, message_count, max_age, created_at, last_used)
		VALUES ($1, $2, $3, $4, true, 1, 1, 1, $5, $5)`
	putGiven   = `INSERT INTO crypto_megolm_outbound_session_shared (user_id, identity_key, session_id) VALUES ($1, $2, $3)`
	putOlm     = `INSERT INTO crypto_olm_session (account_id, session_id, sender_key, session, created_at, last_decrypted, last_encrypted) VALUES ('@bot:x/D', $1, $2, $3, $4, $5, $4)`
	putHash    = `INSERT INTO crypto_olm_message_hash (account_id, received_at, message_hash) VALUES ('@bot:x/D', $1, $2)`
	putTracked = `INSERT INTO crypto_tracked_user (user_id, devices_outdated) VALUES ($1, false)`
	putADevice = `INSERT INTO crypto_device (user_id, device_id, identity_key, signing_key, trust, deleted, name) VALUES ($1, $2, $3, 'k', 0, $4, '')`
	roomKeys   = `SELECT session_id FROM crypto_megolm_inbound_session ORDER BY session_id`
	indexes    = `SELECT DISTINCT session_id FROM crypto_message_index ORDER BY session_id`
	readings   = `SELECT DISTINCT session FROM message_read ORDER BY session`
	sending    = `SELECT session_id FROM crypto_megolm_outbound_session ORDER BY session_id`
	given      = `SELECT session_id FROM crypto_megolm_outbound_session_shared ORDER BY session_id`
	olms       = `SELECT session_id FROM crypto_olm_session ORDER BY session_id`
	ago        = 24 * time.Hour
)

func putAll(t *testing.T, s *store.Store, f *dbutil.Database, rows ...[]any) {
	t.Helper()
	Commit(t, s, func(tx *store.Tx) (err error) {
		for _, row := range rows {
			_, e := f.Exec(tx.Context(ctx()), row[0].(string), row[1:]...)
			err = errors.Join(err, e)
		}
		return err
	})
}

var keyRetentionChecks = []check{
	{"Prune_RoomKeys_GoAYearAfterTheirLastUseAndNeverWhileSomethingWaitsForThem", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		old, young, pickle := start.Add(-366*ago), start.Add(-364*ago), []byte("pickled")
		rows := [][]any{{putAccount, "@bot:x/D", "D", pickle}, {putAccount, "@ann:x/D", "D", pickle}}
		for n, name := range []string{"aold", "byoung", "cparked", "dletter", "eslashed", "frenewed", "gtwo"} {
			at := old
			if name == "byoung" {
				at = young
			}
			rows = append(rows, []any{putRoomKey, "@bot:x/D", longID(name), "other", pickle, at})
			for m := range 3 {
				rows = append(rows, []any{putIndex, longID(name), 10*n + m}, []any{putRead, longID(name), 10*n + m})
			}
		}
		rows = append(rows, []any{putRoomKey, "@ann:x/D", longID("gtwo"), "other", pickle, young}) // another device has it, too
		putAll(t, s, f, rows...)
		park(t, s, "!r", longID("cparked"), start.Add(time.Hour), "$1")
		bury(t, s, &store.DeadLetter{Kind: "pdu", Body: []byte(`{"content":{"session_id":"` + longID("dletter") + `"}}`)},
			&store.DeadLetter{Kind: "pdu", Body: []byte(`{"content":{"session_id":"` + strings.ReplaceAll(longID("eslashed"), "/", `\/`) + `"}}`)})
		Commit(t, s, func(tx *store.Tx) error { return tx.RenewRoomKey(longID("frenewed"), old, "@bot:x/D") })
		shut(t, s)
		db.now = start.Add(2 * time.Minute)
		s = db.open(t)
		lanes := ingest(t, s, transaction(pdu("!a", "$waits"))) // perhaps it needs one
		shut(t, s)
		db.now = start.Add(10 * time.Minute)
		s = db.open(t)
		f = foreignDB(t, s)
		for _, want := range []string{"[aold byoung cparked dletter eslashed frenewed gtwo gtwo]", "[byoung cparked dletter eslashed frenewed gtwo]"} {
			if err := s.Prune(ctx()); err != nil {
				t.Fatal(err)
			}
			expect(t, "room keys", fmt.Sprint(keyNames(t, f, roomKeys)), want)
			expect(t, "indexes", fmt.Sprint(keyNames(t, f, indexes)), strings.Replace(want, "gtwo gtwo", "gtwo", 1))
			expect(t, "messages read", fmt.Sprint(keyNames(t, f, readings)), strings.Replace(want, "gtwo gtwo", "gtwo", 1))
			if len(lanes) > 0 {
				Commit(t, s, func(tx *store.Tx) error { return tx.Finish("!a", lanes[0].Refs[0]) })
				lanes = nil
			}
		}
	}},
	{"Prune_RoomKeysOfTheBridgesOwn_GoAfterAMonthUnlessTheyAreInUse", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		pickle := []byte("pickled")
		putAll(t, s, f, []any{putAccount, "@ann:x/D", "D", pickle}, []any{putADevice, "@ann:x", "D", "annskey", false},
			[]any{putRoomKey, "@bot:x/D", longID("aown"), "annskey", pickle, start.Add(-31 * ago)},
			[]any{putRoomKey, "@ann:x/D", longID("aown"), "annskey", pickle, start.Add(-31 * ago)},
			[]any{putRoomKey, "@bot:x/D", longID("bownyoung"), "annskey", pickle, start.Add(-29 * ago)},
			[]any{putRoomKey, "@bot:x/D", longID("cinuse"), "annskey", pickle, start.Add(-31 * ago)},
			[]any{putSending, "@ann:x/D", "!r", longID("cinuse"), pickle, start.Add(-31 * ago)},
			[]any{putRoomKey, "@bot:x/D", longID("dothers"), "other", pickle, start.Add(-31 * ago)},
			[]any{putGiven, "@bob:x", "bobskey", longID("aown")}, []any{putGiven, "@bob:x", "bobskey", longID("cinuse")})
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		expect(t, "room keys", fmt.Sprint(keyNames(t, f, roomKeys)), "[bownyoung cinuse dothers]")
		expect(t, "notes of who has them", fmt.Sprint(keyNames(t, f, given)), "[cinuse]")
	}},
	{"Prune_RoomKeysBehindManyThatStay_GoInTheSameSweep", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		old, pickle := start.Add(-366*ago), []byte("pickled")
		const many, tail = 20_001, "+++++++++++++++++++++++++++++++++++++" // more than are looked for at once
		Commit(t, s, func(tx *store.Tx) error {
			_, err := f.Exec(tx.Context(ctx()), `WITH RECURSIVE n (i) AS (SELECT 10000 UNION ALL SELECT i + 1 FROM n WHERE i < `+fmt.Sprint(10_000+many-1)+`)
				INSERT INTO crypto_megolm_inbound_session (account_id, session_id, sender_key, room_id, session, received_at)
				SELECT '@ann:x/D', 'b' || CAST(i AS TEXT) || '`+tail+`', 'other', '!r', $1, $2 FROM n`, pickle, old)
			return err
		})
		putAll(t, s, f, []any{putRoomKey, "@ann:x/D", longID("a"), "other", pickle, old}, []any{putRoomKey, "@ann:x/D", longID("c"), "other", pickle, old},
			[]any{putRoomKey, "@bot:x/D", longID("a"), "other", pickle, old})
		var body strings.Builder
		for n := range many {
			fmt.Fprintf(&body, `"b%d%s",`, 10_000+n, tail)
		}
		bury(t, s, &store.DeadLetter{Kind: "pdu", Body: []byte(body.String())})
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		left := keyNames(t, f, roomKeys)
		expect(t, "room keys", len(left), many)
		expect(t, "the first and the last", left[0]+" "+left[len(left)-1], "b10000 b30000")
	}},
	{"Prune_RoomKeysThatHaveOpenedNothing_OfUsersWithWhomNoRoomIsShared_GoAfterAWeek", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		put := strings.NewReplacer("received_at)", "received_at, source_user)", "$5)", "$5, $6)").Replace(putRoomKey)
		var rows [][]any
		for name, of := range map[string]struct {
			user string
			age  time.Duration
		}{
			"agone": {"@eve:x", 8 * ago}, "byoung": {"@eve:x", 6 * ago}, "cmember": {"@bob:x", 8 * ago}, "dread": {"@eve:x", 8 * ago}, "ereadbefore": {"@eve:x", 8 * ago},
			"fparked": {"@eve:x", 8 * ago}, "gletter": {"@eve:x", 8 * ago}, "hown": {"@irc_ann:x", 8 * ago}, "inobodys": {"", 8 * ago}, "jinvited": {"@carl:x", 8 * ago},
			"kleft": {"@dave:x", 8 * ago},
		} {
			rows = append(rows, []any{put, "@bot:x/D", longID(name), "k", []byte("pickled"), start.Add(-of.age), of.user})
		}
		rows = append(rows, []any{putRead, longID("dread"), 0}, []any{putIndex, longID("ereadbefore"), 0})
		putAll(t, s, f, rows...)
		park(t, s, "!r", longID("fparked"), start.Add(time.Hour), "$1")
		bury(t, s, &store.DeadLetter{Kind: "pdu", Body: []byte(`{"content":{"session_id":"` + longID("gletter") + `"}}`)})
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.PutGhost(&store.Ghost{UserID: "@irc_ann:x"}), tx.SetMember("!r", "@bob:x", "join"), tx.SetMember("!r", "@carl:x", "invite"), tx.SetMember("!r", "@dave:x", "leave"))
		})
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		expect(t, "room keys", fmt.Sprint(keyNames(t, f, roomKeys)), "[byoung cmember dread ereadbefore fparked gletter hown inobodys jinvited]")
	}},
	{"Prune_OlmSessions_GoWithTheirDevices", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		pickle, long, short := []byte("pickled"), start.Add(-31*ago), start.Add(-29*ago)
		putAll(t, s, f, []any{putTracked, "@bob:x"}, []any{putADevice, "@bob:x", "HERE", "here", false}, []any{putADevice, "@bob:x", "GONE", "gone", true}, []any{putADevice, "@eve:x", "UNASKED", "unasked", true},
			[]any{putOlm, "funasked", "unasked", pickle, long, long},
			[]any{putOlm, "agone", "gone", pickle, long, long}, []any{putOlm, "bgoneinuse", "gone", pickle, long, short},
			[]any{putOlm, "chere", "here", pickle, long, long}, []any{putOlm, "dnever", "never", pickle, long, long}, []any{putOlm, "eneveryoung", "never", pickle, short, short},
			[]any{putOlm, "gbegun", "madeup", pickle, long, long}, []any{putOlm, "hbegunyoung", "madeup", pickle, short, short}, []any{putOlm, "ibegunhere", "here", pickle, long, long})
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.OlmSessionBegun("@bot:x/D", "@eve:x", "gbegun"), tx.OlmSessionBegun("@bot:x/D", "@eve:x", "hbegunyoung"),
				tx.OlmSessionBegun("@bot:x/D", "@bob:x", "ibegunhere"), tx.OlmSessionBegun("@bot:x/D", "@bob:x", "jgone"),
				tx.OlmSessionClaimed("@bot:x/D", "chere", "signed"), tx.OlmSessionClaimed("@bot:x/D", "agone", "signed"))
		})
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		expect(t, "sessions", fmt.Sprint(keyNames(t, f, olms)), "[bgoneinuse chere dnever eneveryoung funasked hbegunyoung ibegunhere]")
		expect(t, "notes of whose key they were begun with", fmt.Sprint(keyNames(t, f, `SELECT session FROM olm_claimed ORDER BY session`)), "[chere]")
		expect(t, "notes of who has begun them", fmt.Sprint(keyNames(t, f, `SELECT session FROM olm_begun ORDER BY session`)), "[hbegunyoung ibegunhere]")
	}},
	{"Prune_UsersWhomNobodyHasAskedFor_AreForgottenWithWhatTheirMessagesHaveNamed", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		pickle, long, short := []byte("pickled"), start.Add(-31*ago), start.Add(-29*ago)
		key := strings.NewReplacer("received_at)", "received_at, source_user)", "$5)", "$5, $6)").Replace(putRoomKey)
		signed := `INSERT INTO crypto_cross_signing_signatures (signed_user_id, signed_key, signer_user_id, signer_key, signature) VALUES ($1, 'k', $1, 'by', 's')`
		putAll(t, s, f, []any{putAccount, "@bot:x/D", "D", pickle}, []any{putADevice, "@bot:x", "D", "bots", false})
		for _, name := range []string{"nothing", "begunlong", "begunshort", "roomkey", "member"} {
			putAll(t, s, f, []any{putADevice, "@" + name + ":x", "A", name, true}, []any{signed, "@" + name + ":x"})
		}
		putAll(t, s, f, []any{putADevice, "@nothing:x", "B", "nothing2", true}, []any{putOlm, "begunlong", "begunlong", pickle, long, long}, []any{putOlm, "begunshort", "begunshort", pickle, short, short},
			[]any{key, "@bot:x/D", longID("a"), "roomkey", pickle, start, "@roomkey:x"}, []any{`INSERT INTO member (room, user_id, membership) VALUES ('!r', '@member:x', 'join')`})
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.OlmSessionBegun("@bot:x/D", "@begunlong:x", "begunlong"), tx.OlmSessionBegun("@bot:x/D", "@begunshort:x", "begunshort"))
		})
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		expect(t, "users with devices", fmt.Sprint(keyNames(t, f, `SELECT DISTINCT user_id FROM crypto_device ORDER BY user_id`)), "[@begunshort:x @bot:x @member:x @roomkey:x]")
		expect(t, "users with signed ones", fmt.Sprint(keyNames(t, f, `SELECT DISTINCT signed_user_id FROM crypto_cross_signing_signatures ORDER BY 1`)), "[@begunshort:x @member:x @roomkey:x]")
	}},
	{"Prune_UsersWithWhomNoRoomIsSharedAndOfWhomNothingIsKept_AreForgotten", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		pickle, long, short := []byte("pickled"), start.Add(-31*ago), start.Add(-29*ago)
		put := strings.NewReplacer("received_at)", "received_at, source_user)", "$5)", "$5, $6)").Replace(putRoomKey)
		rows := [][]any{{putAccount, "@irc_own:x/D", "D", pickle}, {put, "@bot:x/D", longID("key"), "keyed", pickle, start, "@keyed:x"},
			{putOlm, "agone", "gone", pickle, long, long}, {putOlm, "bshared", "sharedkey", pickle, long, long}, {putOlm, "cused", "used", pickle, long, short},
			{putOlm, "dhere", "here", pickle, long, long}, {putADevice, "@here:x", "D2", "sharedkey", false}}
		for _, name := range []string{"gone", "here", "keyed", "invited", "used", "irc_own"} {
			user := "@" + name + ":x"
			rows = append(rows, []any{putTracked, user}, []any{putADevice, user, "D", name, false},
				[]any{`INSERT INTO crypto_cross_signing_keys (user_id, usage, key, first_seen_key) VALUES ($1, 'master', $2, $2)`, user, longID(name)},
				[]any{`INSERT INTO crypto_cross_signing_signatures (signed_user_id, signed_key, signer_user_id, signer_key, signature) VALUES ($1, 'k', $1, 'k', 's')`, user})
		}
		rows = append(rows, []any{putADevice, "@gone:x", "D2", "sharedkey", false}) // which @here has as well
		putAll(t, s, f, rows...)
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.SetMember("!r", "@here:x", "join"), tx.SetMember("!r", "@invited:x", "invite"), tx.SetMember("!r", "@gone:x", "leave"))
		})
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"crypto_tracked_user", "crypto_device", "crypto_cross_signing_keys"} {
			expect(t, table, fmt.Sprint(keyNames(t, f, `SELECT DISTINCT user_id FROM `+table+` ORDER BY user_id`)), "[@here:x @invited:x @irc_own:x @keyed:x @used:x]")
		}
		expect(t, "signatures", len(keyNames(t, f, `SELECT signed_user_id FROM crypto_cross_signing_signatures`)), 5)
		expect(t, "sessions", fmt.Sprint(keyNames(t, f, olms)), "[bshared cused dhere]")
	}},
	{"DeleteGoneDevices_OfAUser_LeavesThoseWhoseKeysCameLastAndThoseThatAreThere", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		pickle := []byte("pickled")
		var rows [][]any
		for n, name := range []string{"anokey", "bold", "cnew", "dnewer"} {
			rows = append(rows, []any{putADevice, "@eve:x", name, name, true}, []any{putOlm, name, name, pickle, start, start})
			if n > 0 {
				rows = append(rows, []any{putRoomKey, "@bot:x/D", longID(name), name, pickle, start.Add(time.Duration(n) * time.Hour)})
			}
		}
		putAll(t, s, f, append(rows, []any{putADevice, "@eve:x", "ehere", "ehere", false}, []any{putADevice, "@bob:x", "fothers", "bold", true})...)
		Commit(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.OlmSessionBegun("@bot:x/D", "@eve:x", "anokey"), tx.OlmSessionBegun("@bot:x/D", "@eve:x", "bold"), tx.DeleteGoneDevices("@eve:x", 2))
		})
		expect(t, "devices", fmt.Sprint(keyNames(t, f, `SELECT device_id FROM crypto_device ORDER BY device_id`)), "[cnew dnewer ehere fothers]")
		expect(t, "sessions", fmt.Sprint(keyNames(t, f, olms)), "[bold cnew dnewer]") // another user has that key, too
	}},
	{"DeleteGoneDevices_WithAnothersKey_LeavesHisSessionsUntilNobodyUsesThem", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		pickle, long, short := []byte("pickled"), start.Add(-31*ago), start.Add(-29*ago)
		putAll(t, s, f, []any{putADevice, "@eve:x", "A", "bobskey", true}, []any{putADevice, "@eve:x", "B", "anotherkey", true}, []any{putTracked, "@eve:x"},
			[]any{putOlm, "ahis", "bobskey", pickle, short, short}, []any{putOlm, "bunknown", "bobskey", pickle, short, short},
			[]any{putOlm, "chers", "bobskey", pickle, short, short}, []any{putOlm, "dold", "anotherkey", pickle, long, long})
		Commit(t, s, func(tx *store.Tx) error {
			err := errors.Join(tx.OlmSessionBegun("@bot:x/D", "@bob:x", "ahis"), tx.OlmSessionBegun("@bot:x/D", "@eve:x", "chers"), tx.DeleteGoneDevices("@eve:x", 0))
			return errors.Join(err, tx.DeleteOlmSessionsBegun("@bot:x/D", "@eve:x", 0)) // she has begun others since
		})
		expect(t, "devices", fmt.Sprint(keyNames(t, f, `SELECT device_id FROM crypto_device`)), "[]")
		expect(t, "sessions", fmt.Sprint(keyNames(t, f, olms)), "[ahis bunknown dold]")
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		expect(t, "sessions that were used", fmt.Sprint(keyNames(t, f, olms)), "[ahis bunknown]")
	}},
	{"Prune_HashesOfOlmMessages_GoAfter90Days", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		putAll(t, s, f, []any{putAccount, "@bot:x/D", "D", []byte("pickled")},
			[]any{putHash, start.Add(-91 * ago).UnixMilli(), []byte{1, 0, '\\', 255}}, []any{putHash, start.Add(-89 * ago).UnixMilli(), []byte{2, 0, '\\', 255}})
		if err := s.Prune(ctx()); err != nil {
			t.Fatal(err)
		}
		var hash []byte
		if err := f.QueryRow(ctx(), `SELECT message_hash FROM crypto_olm_message_hash`).Scan(&hash); err != nil {
			t.Fatal(err)
		}
		expect(t, "hashes", fmt.Sprint(len(keyNames(t, f, `SELECT received_at FROM crypto_olm_message_hash`)), " ", hash), "1 [2 0 92 255]")
	}},
	{"DeleteUnreadKeys_OfOneSender_LeavesTheNewestAndThoseThatWereUsed", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		put := strings.NewReplacer("received_at)", "received_at, source_user)", "$5)", "$5, $6)").Replace(putRoomKey)
		var rows [][]any
		for n, name := range []string{"aused", "bold", "cold", "dnew", "enew"} {
			rows = append(rows, []any{put, "@bot:x/D", longID(name), "k", []byte("pickled"), start.Add(time.Duration(n) * time.Hour), "@eve:x"})
		}
		rows = append(rows, []any{put, "@bot:x/D", longID("fothers"), "k", []byte("pickled"), start, "@bob:x"},
			[]any{put, "@ann:x/D", longID("bold"), "k", []byte("pickled"), start, "@eve:x"}, []any{putIndex, longID("aused"), 0},
			[]any{put, "@bot:x/D", longID("gwaitedfor"), "k", []byte("pickled"), start, "@eve:x"},
			[]any{put, "@bot:x/D", longID("hused"), "k", []byte("pickled"), start, "@eve:x"}, []any{putRead, longID("hused"), 0})
		putAll(t, s, f, rows...)
		park(t, s, "!r", longID("gwaitedfor"), start.Add(time.Hour), "$1")
		Commit(t, s, func(tx *store.Tx) error { return tx.DeleteUnreadKeys("@bot:x/D", "@eve:x", 2) })
		expect(t, "room keys", fmt.Sprint(keyNames(t, f, roomKeys)), "[aused bold dnew enew fothers gwaitedfor hused]") // the one that is left of the old is another device's
	}},
	{"MessageRead_InAnotherEvent_IsFirstForEachSenderOnceAndAfterAnOlderVersionForNobody", func(t *testing.T, db *database) {
		s := db.open(t)
		session, old := longID("new"), longID("old")
		putAll(t, s, foreignDB(t, s), []any{putIndex, old, 7})
		for _, c := range []struct {
			session       string
			number        uint
			sender, event string
			written       int64
			want          bool
		}{
			{session, 7, "@ann:x", "$1", 1, true},
			{session, 7, "@bob:x", "$2", 1, true},
			{session, 7, "@ann:x", "$1", 1, true},
			{session, 7, "@ann:x", "$2", 1, false},
			{session, 7, "@ann:x", "$1", 2, false},
			{session, 8, "@ann:x", "$3", 1, true},
			{session, 7, odd[0], odd[0], 1, true},
			{old, 7, "@ann:x", "$1", 1, false}, // nobody knows who wrote what was read then
			{old, 7, "@ann:x", "e", 1, true},
			{old, 7, "@ann:x", "e", 2, false},
			{old, 8, "@ann:x", "$1", 1, true},
		} {
			Commit(t, s, func(tx *store.Tx) error {
				first, err := tx.MessageRead(c.session, c.number, c.sender, c.event, c.written)
				expect(t, fmt.Sprint(c), first, c.want)
				return err
			})
		}
	}},
	{"RenewRoomKey_ThatIsYoung_WritesNothing", func(t *testing.T, db *database) {
		s := db.open(t)
		f := foreignDB(t, s)
		for _, age := range []time.Duration{29 * ago, 31 * ago} {
			name := longID(fmt.Sprint(int(age/ago), "d"))
			putAll(t, s, f, []any{putRoomKey, "@bot:x/D", name, "other", []byte("pickled"), start.Add(-age)})
			Commit(t, s, func(tx *store.Tx) error { return tx.RenewRoomKey(name, start.Add(-age), "@bot:x/D") })
		}
		var renewed []string
		rows, err := f.Query(ctx(), `SELECT session_id FROM crypto_megolm_inbound_session WHERE received_at >= $1`, start.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			renewed = append(renewed, name[:3])
		}
		expect(t, "renewed", fmt.Sprint(renewed), "[31d]")
	}},
}
