package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

var mediaChecks = []check{
	{"MediaKeys_OneSignsAtATime", func(t *testing.T, db *database) {
		s := db.open(t)
		add := func(tx *store.Tx, secret string) (uint8, error) {
			k := store.MediaKey{Secret: []byte(secret)}
			err := tx.AddMediaKey(&k)
			return k.ID, err
		}
		Commit(t, s, func(tx *store.Tx) error { _, err := add(tx, "one"); return err })
		expectError(t, "a second key", fails(s, func(tx *store.Tx) error { _, err := add(tx, "two"); return err }), store.ErrTaken)
		Commit(t, s, func(tx *store.Tx) error {
			_, err := add(tx, "two")
			if !errors.Is(err, store.ErrTaken) {
				t.Errorf("second key: %v", err)
			}
			if err = tx.RetireMediaKey(1); err != nil {
				return err
			}
			id, err := add(tx, "two")
			expect(t, "ID", id, uint8(2))
			return err
		})
		expectError(t, "RetireMediaKey", fails(s, func(tx *store.Tx) error { return tx.RetireMediaKey(1) }), store.ErrNotFound)
		got, err := s.MediaKeys(ctx())
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "keys", got, []store.MediaKey{
			{ID: 1, Secret: []byte("one"), Created: start, Retired: start}, {ID: 2, Secret: []byte("two"), Created: start},
		})
		// All 255 IDs can be used, and then no more.
		Commit(t, s, func(tx *store.Tx) error {
			last := uint8(2)
			for range 253 {
				if err := tx.RetireMediaKey(last); err != nil {
					return err
				}
				id, err := add(tx, "more")
				if err != nil {
					return err
				}
				last = id
			}
			return tx.RetireMediaKey(last)
		})
		expectError(t, "key 256", fails(s, func(tx *store.Tx) error { _, err := add(tx, "x"); return err }), store.ErrTaken)
	}},
	{"Media_IsKeptAndRevoked", func(t *testing.T, db *database) {
		s := db.open(t)
		m := store.Media{Server: "x", MediaID: "y", Room: "!a", Event: "$e", Name: "p.jpg", MIME: "image/jpeg", Size: 1 << 40, Expires: start.Add(time.Hour), Info: []byte{1}}
		other := store.Media{Server: "x", MediaID: "z", Room: "!a", Event: "$f"}
		Commit(t, s, func(tx *store.Tx) error { return errors.Join(tx.AddMedia(&m), tx.AddMedia(&other)) })
		again := store.Media{Server: "x", MediaID: "y", Room: "!a", Event: "$e", Name: "p.jpg", MIME: "image/jpeg", Expires: start.Add(2 * time.Hour), Info: []byte{1}}
		Commit(t, s, func(tx *store.Tx) error { return tx.AddMedia(&again) })
		if again.ID != m.ID || !again.Expires.Equal(m.Expires) {
			t.Errorf("the same media in the same event got link %d until %v, want %d until %v", again.ID, again.Expires, m.ID, m.Expires)
		}
		read := func(id int64) store.Media {
			got, err := s.Media(ctx(), id)
			if err != nil {
				t.Fatal(err)
			}
			return *got
		}
		expect(t, "media", read(m.ID), m)
		Commit(t, s, func(tx *store.Tx) error {
			n, err := tx.RevokeMedia("!a", "$e")
			expect(t, "revoked", n, int64(1))
			return err
		})
		m.Revoked = start
		expect(t, "revoked media", read(m.ID), m)
		expect(t, "the other", read(other.ID).Revoked.IsZero(), true)
		_, err := s.Media(ctx(), 1<<40)
		expectError(t, "Media", err, store.ErrNotFound)
	}},
	{"MediaPage_IsEditedByItsSenderAloneAndGoesWithTheMessage", func(t *testing.T, db *database) {
		s := db.open(t)
		record := func(event string) store.Media {
			return store.Media{Room: "!a", Event: event, Name: "text", Kind: "text", Sender: "@alice:x", Expires: start.Add(time.Hour)}
		}
		add := func(event, body string, written time.Time) (m store.Media) {
			m = record(event)
			Commit(t, s, func(tx *store.Tx) error {
				return tx.AddPage(&m, &store.MediaPage{Body: []byte(body), Written: written})
			})
			return m
		}
		edit := func(sender, body string, written time.Time) (n int64) {
			Commit(t, s, func(tx *store.Tx) (err error) {
				n, err = tx.EditPages(&store.Media{Room: "!a", Event: "$e", Edit: "$" + body, Sender: sender, Kind: "text"},
					&store.MediaPage{Body: []byte(body), Written: written})
				return err
			})
			return n
		}
		shows := func(id int64) string {
			p, err := s.MediaPage(ctx(), id)
			if err != nil {
				return err.Error()
			}
			return string(p.Body)
		}
		first, other := add("$e", "one", start), add("$f", "other", start)
		expect(t, "the record's kind", first.Kind, "text")
		expect(t, "a second page of the event", add("$e", "two", start.Add(time.Second)).ID, first.ID)
		expect(t, "page", shows(first.ID), "two")
		add("$e", "one", start) // tried again, late
		expect(t, "page after what is older", shows(first.ID), "two")
		expect(t, "pages that a stranger edits", edit("@mallory:x", "forged", start.Add(time.Minute)), int64(0))
		expect(t, "pages that an old edit changes", edit("@alice:x", "old", start), int64(0))
		expect(t, "edited pages", edit("@alice:x", "three", start.Add(time.Minute)), int64(1))
		expect(t, "edited page", shows(first.ID), "three")
		Commit(t, s, func(tx *store.Tx) error { _, err := tx.RevokeLinks(store.MediaScope{Record: other.ID}); return err })
		expect(t, "the page of a revoked link, to be signed again", shows(other.ID), "other")
		Commit(t, s, func(tx *store.Tx) error { _, err := tx.RevokeMedia("!a", "$e"); return err })
		_, err := s.MediaPage(ctx(), first.ID)
		expectError(t, "the page of a redacted message", err, store.ErrNotFound)
		late := add("$e", "four", start.Add(time.Hour))
		expect(t, "a page after the redaction is revoked", late.Revoked.IsZero(), false)
		_, err = s.MediaPage(ctx(), late.ID)
		expectError(t, "a page after the redaction", err, store.ErrNotFound)
	}},
	{"Media_OfAnEdit_EndsWithTheEditToo", func(t *testing.T, db *database) {
		s := db.open(t)
		redact := func(event string) {
			Commit(t, s, func(tx *store.Tx) error { _, err := tx.RevokeMedia("!a", event); return err })
		}
		ends := func(what string, id int64, want bool) {
			t.Helper()
			got, err := s.Media(ctx(), id)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, what+" has ended", !got.Revoked.IsZero(), want)
		}
		file := func(name, edit string) store.Media {
			m := store.Media{Server: "x", MediaID: name, Room: "!a", Event: "$e", Edit: edit}
			Commit(t, s, func(tx *store.Tx) error { return tx.AddMedia(&m) })
			return m
		}
		page := func(body, edit string, written time.Time) store.Media {
			m := store.Media{Room: "!a", Event: "$e", Edit: edit, Sender: "@alice:x", Kind: "text"}
			Commit(t, s, func(tx *store.Tx) error {
				return tx.AddPage(&m, &store.MediaPage{Body: []byte(body), Written: written})
			})
			return m
		}
		edits := func(body, edit string, written time.Time) (n int64) {
			Commit(t, s, func(tx *store.Tx) (err error) {
				n, err = tx.EditPages(&store.Media{Room: "!a", Event: "$e", Edit: edit, Sender: "@alice:x", Kind: "text"}, &store.MediaPage{Body: []byte(body), Written: written})
				return err
			})
			return n
		}
		first, second, text := file("1", ""), file("2", "$2"), page("one", "", start)
		expect(t, "the link to what the edit kept", file("1", "$2").ID, first.ID)
		expect(t, "edited pages", edits("two", "$2", start.Add(time.Second)), int64(1))
		expect(t, "pages edited by what is older", edits("older", "$older", start), int64(0))
		page("one", "", start) // tried again, late
		r := store.MediaRevocation{MediaScope: store.MediaScope{Room: "!a", Event: "$2"}, Final: true}
		expect(t, "the edit's redaction covers its file, and the one before", [2]bool{r.Covers(&second), r.Covers(&first)}, [2]bool{true, false})
		redact("$older")
		ends("the page of a later edit", text.ID, false)
		links, err := s.MediaLinks(ctx(), store.MediaScope{Event: "$2"}, 0, 10)
		expect(t, "links of the edit", len(links), 2)
		if err != nil {
			t.Error(err)
		}
		redact("$2")
		ends("the file that was there before", first.ID, false)
		ends("the file of the edit", second.ID, true)
		ends("the page that shows the edit", text.ID, true)
		_, err = s.MediaPage(ctx(), text.ID)
		expectError(t, "what the page showed", err, store.ErrNotFound)
		expect(t, "a new link to the file of the edit is revoked", file("2", "$2").Revoked.IsZero(), false)

		third := page("three", "$3", start.Add(time.Minute))
		expect(t, "the page of the next edit is a new one", third.ID != text.ID, true)
		expect(t, "pages edited by what is redacted", edits("two", "$2", start.Add(time.Hour)), int64(0))
		redact("$3")
		ends("the page of the next edit", third.ID, true)
		fourth := file("4", "$4")
		redact("$e")
		ends("the file of another edit", fourth.ID, true)
	}},
	{"MediaPage_GoesWithItsLinksEnd", func(t *testing.T, db *database) {
		s := db.open(t)
		var ids [3]int64
		for i, expires := range []time.Time{start.Add(time.Hour), start.Add(72 * 24 * time.Hour), {}} {
			m := store.Media{Room: "!a", Event: fmt.Sprint("$", i), Kind: "text", Expires: expires}
			Commit(t, s, func(tx *store.Tx) error { return tx.AddPage(&m, &store.MediaPage{Body: []byte("x"), Written: start}) })
			ids[i] = m.ID
		}
		Commit(t, s, func(tx *store.Tx) error { _, err := tx.RevokeLinks(store.MediaScope{Record: ids[1]}); return err })
		for _, at := range []struct {
			after   time.Duration
			page    [3]bool
			records [3]bool
		}{
			{0, [3]bool{true, true, true}, [3]bool{true, true, true}},
			{2 * time.Hour, [3]bool{false, true, true}, [3]bool{true, true, true}},
			{31 * 24 * time.Hour, [3]bool{false, false, true}, [3]bool{false, true, true}},
		} {
			shut(t, s)
			db.now = start.Add(at.after)
			s = db.open(t)
			if err := s.Prune(ctx()); err != nil {
				t.Fatal(err)
			}
			for i, id := range ids {
				_, err := s.MediaPage(ctx(), id)
				expect(t, fmt.Sprint("page ", i, " is there after ", at.after), err == nil, at.page[i])
				_, err = s.Media(ctx(), id)
				expect(t, fmt.Sprint("record ", i, " is there after ", at.after), err == nil, at.records[i])
			}
		}
	}},
}
