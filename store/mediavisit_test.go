package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// mediaPlace is a store or a visitor: both must behave alike.
type mediaPlace interface {
	Media(ctx context.Context, id int64) (*store.Media, error)
	MediaLinks(ctx context.Context, sc store.MediaScope, after int64, limit int) ([]store.Media, error)
	MediaKeys(ctx context.Context) ([]store.MediaKey, error)
	MediaRevocations(ctx context.Context, after int64, since time.Time) ([]store.MediaRevocation, error)
	LinkRevoked(ctx context.Context, m *store.Media) (bool, error)
	ChangeMedia(ctx context.Context, job func(tx store.MediaTx) error) error
}

// onStoreAndBeside runs a test with the store itself, and with a visitor beside it, which must not be fenced or fence.
func onStoreAndBeside(t *testing.T, run func(t *testing.T, place mediaPlace)) {
	onBothEngines(t, func(t *testing.T, uri string) { run(t, storetest.Open(t, uri, store.Options{})) })
	t.Run("beside", func(t *testing.T) {
		onBothEngines(t, func(t *testing.T, uri string) {
			s := storetest.Open(t, uri, store.Options{})
			v, err := store.Visit(t.Context(), uri)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			run(t, v)
			storetest.Commit(t, s, func(tx *store.Tx) error { return tx.PutSetting("still", []byte("held")) })
		})
	})
}

func change(t *testing.T, place mediaPlace, job func(tx store.MediaTx) error) {
	t.Helper()
	if err := place.ChangeMedia(t.Context(), job); err != nil {
		t.Fatal(err)
	}
}

func TestMedia_RevokedByScope_EndsWhatTheScopeMeansAndNothingElse(t *testing.T) {
	onStoreAndBeside(t, func(t *testing.T, place mediaPlace) {
		links := []store.Media{
			{Server: "a", MediaID: "1", Room: "!x", Event: "$1", Sender: "@alice:a"},
			{Server: "a", MediaID: "2", Room: "!x", Event: "$2", Sender: "@bob:a"},
			{Server: "b", MediaID: "1", Room: "!y", Event: "$3", Sender: "@alice:a"},
		}
		for _, c := range []struct {
			scope func() store.MediaScope
			ended string
		}{
			{func() store.MediaScope { return store.MediaScope{Record: links[1].ID} }, "2"},
			{func() store.MediaScope { return store.MediaScope{Room: "!x"} }, "12"},
			{func() store.MediaScope { return store.MediaScope{Room: "!x", Event: "$1"} }, "1"},
			{func() store.MediaScope { return store.MediaScope{Sender: "@alice:a"} }, "13"},
			{func() store.MediaScope { return store.MediaScope{Server: "b", Media: "1"} }, "3"},
			{func() store.MediaScope { return store.MediaScope{} }, "123"},
			{func() store.MediaScope { return store.MediaScope{Room: "!nowhere"} }, ""},
		} {
			change(t, place, func(tx store.MediaTx) error {
				var errs []error
				for i := range links {
					links[i].ID, links[i].Created = 0, time.Time{}
					errs = append(errs, tx.AddMedia(&links[i]))
				}
				return errors.Join(errs...)
			})
			var n int64
			change(t, place, func(tx store.MediaTx) (err error) {
				n, err = tx.RevokeLinks(c.scope())
				return err
			})
			ended := ""
			for i, link := range links {
				got, err := place.Media(t.Context(), link.ID)
				if err != nil {
					t.Fatal(err)
				}
				if !got.Revoked.IsZero() {
					ended += fmt.Sprint(i + 1)
				}
			}
			if ended != c.ended || int(n) != len(ended) {
				t.Errorf("%+v ended %q (%d), want %q", c.scope(), ended, n, c.ended)
			}
			made, err := place.MediaRevocations(t.Context(), 0, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			last := made[len(made)-1]
			for i, link := range links {
				if covered := last.Covers(&link); covered != (len(c.ended) > 0 && contains(c.ended, i+1)) {
					t.Errorf("%+v covers link %d: %v", last, i+1, covered)
				}
			}
			change(t, place, func(tx store.MediaTx) error { _, err := tx.RevokeLinks(store.MediaScope{}); return err })
			time.Sleep(2 * time.Millisecond) // times are kept in milliseconds
		}
	})
}

func contains(s string, n int) bool {
	for _, r := range s {
		if fmt.Sprint(n) == string(r) {
			return true
		}
	}
	return false
}

func TestMedia_LinkWithoutARecord_EndsByRoomEventAndMediaButNotByLaterOnes(t *testing.T) {
	onStoreAndBeside(t, func(t *testing.T, place mediaPlace) {
		link := store.Media{Server: "a", MediaID: "1", Room: "!x", Event: "$1", Created: time.Now().Add(-time.Minute)}
		revoked := func(m store.Media) bool {
			got, err := place.LinkRevoked(t.Context(), &m)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		revoke := func(sc store.MediaScope) {
			change(t, place, func(tx store.MediaTx) error { _, err := tx.RevokeLinks(sc); return err })
		}
		revoke(store.MediaScope{Room: "!y"})
		revoke(store.MediaScope{Event: "$2"})
		revoke(store.MediaScope{Server: "a", Media: "2"})
		revoke(store.MediaScope{Sender: "@alice:a"})
		revoke(store.MediaScope{Record: 1})
		if revoked(link) {
			t.Error("ended by what does not mean it")
		}
		revoke(store.MediaScope{Room: "!x"})
		later := link
		later.Created = time.Now().Add(time.Minute)
		if !revoked(link) || revoked(later) {
			t.Errorf("the link: %v, one made later: %v", revoked(link), revoked(later))
		}
		change(t, place, func(tx store.MediaTx) error { _, err := tx.RevokeMedia("!x", "$1"); return err })
		if !revoked(later) {
			t.Error("a link to a redacted message, made later, lives")
		}
		var added store.Media
		change(t, place, func(tx store.MediaTx) error {
			added = store.Media{Server: "a", MediaID: "1", Room: "!x", Event: "$1"}
			return tx.AddMedia(&added)
		})
		if added.Revoked.IsZero() {
			t.Error("a redacted message got a link that lives")
		}
	})
}

func TestMedia_LinksOfAScope_AreListedInPages(t *testing.T) {
	onStoreAndBeside(t, func(t *testing.T, place mediaPlace) {
		for n := range 5 {
			change(t, place, func(tx store.MediaTx) error {
				return tx.AddMedia(&store.Media{Server: "a", MediaID: fmt.Sprint(n), Room: "!list", Event: "$1", Sender: "@alice:a"})
			})
		}
		var got []string
		for after := int64(0); ; {
			page, err := place.MediaLinks(t.Context(), store.MediaScope{Room: "!list", Sender: "@alice:a"}, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, m := range page {
				got, after = append(got, m.MediaID), m.ID
			}
		}
		if fmt.Sprint(got) != "[0 1 2 3 4]" {
			t.Error(got)
		}
	})
}

func TestMediaKeys_ManyWhoMakeTheFirstKeyAtOnce_MakeOne(t *testing.T) {
	onBothEngines(t, func(t *testing.T, uri string) {
		s := storetest.Open(t, uri, store.Options{})
		places := []mediaPlace{s}
		for range 4 {
			v, err := store.Visit(t.Context(), uri)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			places = append(places, v)
		}
		var wg sync.WaitGroup
		errs := make([]error, len(places))
		for i, place := range places {
			wg.Go(func() {
				errs[i] = place.ChangeMedia(t.Context(), func(tx store.MediaTx) error { return tx.AddMediaKey(&store.MediaKey{Secret: make([]byte, 32)}) })
			})
		}
		wg.Wait()
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
			} else if !errors.Is(err, store.ErrTaken) {
				t.Error(err)
			}
		}
		keys, err := s.MediaKeys(t.Context())
		if err != nil || len(keys) != 1 || made != 1 {
			t.Errorf("%d keys, made by %d: %v", len(keys), made, err)
		}
	})
}

func TestMediaKeys_DeadKey_IsNeitherRetiredTwiceNorForgotten(t *testing.T) {
	onStoreAndBeside(t, func(t *testing.T, place mediaPlace) {
		var k store.MediaKey
		change(t, place, func(tx store.MediaTx) error {
			k = store.MediaKey{Secret: make([]byte, 32)}
			if err := tx.AddMediaKey(&k); err != nil {
				return err
			}
			return tx.KillMediaKey(k.ID)
		})
		if err := place.ChangeMedia(t.Context(), func(tx store.MediaTx) error { return tx.KillMediaKey(k.ID) }); !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
		keys, err := place.MediaKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last := keys[len(keys)-1]
		if last.ID != k.ID || last.Dead.IsZero() || last.Retired.IsZero() {
			t.Errorf("%v %v", last.Dead, last.Retired)
		}
	})
}

func TestMedia_Revocation_CoversLaterLinksOnlyWhenItIsFinal(t *testing.T) {
	made := time.UnixMilli(1_700_000_000_500)
	r := store.MediaRevocation{MediaScope: store.MediaScope{Room: "!x"}, Made: made}
	for _, c := range []struct {
		created      time.Time
		covers, also bool // also: when it is final
	}{
		{made.Add(-time.Second), true, true}, {made.Add(400 * time.Microsecond), true, true}, {made.Add(time.Millisecond), false, true}, {time.Time{}, true, true},
	} {
		m := store.Media{Room: "!x", Created: c.created}
		if r.Final = false; r.Covers(&m) != c.covers {
			t.Errorf("made %v later: %v", c.created.Sub(made), !c.covers)
		}
		if r.Final = true; r.Covers(&m) != c.also {
			t.Errorf("final, made %v later: %v", c.created.Sub(made), !c.also)
		}
	}
}
