//go:build goolm

package crypto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

// endless is JSON with a text in it that is as long as a process has memory for a few times only.
func endless(before, after string) io.Reader {
	return io.MultiReader(strings.NewReader(before), io.LimitReader(letters{}, 100<<20), strings.NewReader(after))
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = 'a'
	}
	return len(p), nil
}

// allocates is how much memory a function has asked for, in MiB.
func allocates(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) >> 20
}

// What a server says of one of its users in a room must neither fill the memory nor keep the others from being written to.
func TestDevices_OfAUserOfWhomMoreIsSaidThanFitsIntoMemory_AreAsIfHisServerWereSilent(t *testing.T) {
	w, bot, room, _, other := members(t)
	bob := other.p
	_, err := bob.Join(t.Context(), string(room))
	w.no(err)
	w.settle()
	before := 0
	defer w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !strings.HasSuffix(r.URL.Path, "/keys/query") || !bytes.Contains(body, []byte(bob.ID())) {
			return false
		}
		before++
		own, _ := json.Marshal(w.alice.made("A", true))
		_, _ = io.Copy(rw, endless(fmt.Sprintf(`{"device_keys":{%q:{"A":{"x":"`, bob.ID()), fmt.Sprintf(`"}},%q:{"A":%s}}}`, w.alice.ID(), own)))
		return true
	})()
	w.outdated(w.alice.ID())
	w.outdated(bob.ID())
	if much := allocates(func() {
		for range 3 {
			_, err = w.seal(bot, room, "x")
			w.no(err)
		}
	}); much > 100 {
		t.Errorf("it has taken %d MiB", much)
	}
	if before != 1 {
		t.Errorf("three messages have waited %d times for what is said of him", before)
	}
	if devices, err := w.crypto.Devices(t.Context(), bot, w.alice.ID()); err != nil || devices["A"] == nil {
		t.Errorf("alice, of whom something was said as well: %v %v", devices, err)
	}
}

func TestQuery_ThatLooksWhetherSomethingIsThere_FailsWhereTooMuchIsSaid(t *testing.T) {
	if _, err := crypto.ReadQueried("@a:x", endless(`{"device_keys":{"@a:x":{"A":"`, `"}}}`)); !errors.Is(err, crypto.ErrTooMuch) || !strings.Contains(err.Error(), "@a:x") {
		t.Errorf("%v", err)
	}
}

func TestShare_OneTimeKeysThatAreMoreThanFitIntoMemory_KeepNobodyElseFromBeingWrittenTo(t *testing.T) {
	w, bot, room, _, other := members(t)
	bob := other.p
	_, err := bob.Join(t.Context(), string(room))
	w.no(err)
	w.settle()
	defer w.hs.Intercept(func(rw http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/keys/claim") {
			return false
		}
		key, _ := json.Marshal(fields{string(bob.DeviceID()): bob.oneTime(w.alice.again().olm.GetAccount().IdentityKey())})
		_, _ = io.Copy(rw, endless(fmt.Sprintf(`{"failures":{},"one_time_keys":{%q:{"A":[{},"\\\"`, w.alice.ID()), fmt.Sprintf(`"]},%q:%s}}`, bob.ID(), key)))
		return true
	})()
	if much := allocates(func() {
		_, err = w.seal(bot, room, "x")
		w.no(err)
	}); much > 100 {
		t.Errorf("it has taken %d MiB", much)
	}
	if with, all := w.sessions(bob.olm.GetAccount().IdentityKey()); with != 1 || all != 1 {
		t.Errorf("of %d sessions %d are with Bob", all, with)
	}
}

// Of all users of a server no more is held than may be read, and those of whom it says most are left out: who says much of some takes nobody else away.
func TestSift_OfAServerThatSaysTooMuch_WhoOfWhomItSaysMostIsLeftOut(t *testing.T) {
	var body bytes.Buffer
	asked, quiet := []id.UserID{}, 0
	said := func(user string, size int) string {
		return fmt.Sprintf(`%q:{"D":"%s"}`, user, strings.Repeat("a", size))
	}
	body.WriteString(`{"other":[1,{"}":"{"}], "master_keys" : null, "device_keys":{` + said("@unasked:evil.test", 100))
	for n := range 4 {
		for _, of := range []struct {
			user string
			size int
		}{{"@quiet%d:evil.test", 10_000}, {"@loud%d:evil.test", 5 << 20}, {"@other%d:hs.test", 1 << 20}, {"@too\u006duch%d:hs.test", 9 << 20}} {
			asked = append(asked, id.UserID(strings.ReplaceAll(fmt.Sprintf(of.user, n), `\u006d`, "m")))
			fmt.Fprint(&body, ",", strings.ReplaceAll(said(fmt.Sprintf(of.user, n), of.size), `\\u`, `\u`))
		}
	}
	body.WriteString(` } , "self_signing_keys" : { } }`)
	left, tooMuch, err := crypto.Sift(asked, &body)
	if err != nil {
		t.Fatal(err)
	}
	for user, raw := range left {
		if !json.Valid(raw) || tooMuch[user] {
			t.Errorf("%s: %.30q, of whom too much was said: %t", user, raw, tooMuch[user])
		}
		if strings.HasPrefix(string(user), "@quiet") || strings.HasPrefix(string(user), "@other") {
			quiet++
		}
	}
	if quiet != 8 || len(left) != 9 || len(tooMuch) != 7 {
		t.Errorf("%d are left, of whom %d are of few words; of %d too much was said", len(left), quiet, len(tooMuch))
	}
}

// A room may have more users of one server than an int of 32 bits can count bytes for: the bound would be below nothing, and what is too much would be left out for ever.
func TestSift_OfAnyNumberOfUsers_TheBoundIsOne(t *testing.T) {
	if bound := int64(crypto.MostSentOfServer(1 << 20)); bound > math.MaxInt32 || bound < crypto.MostOfServer {
		t.Errorf("of a million users of a server %d bytes are held", bound)
	}
}

// An answer that comes in pieces has its end in one of its own. A connection of which it was not read is closed, and each question would need another.
func TestSift_AnAnswerIsReadToItsEnd(t *testing.T) {
	for after, sound := range map[string]bool{"": true, " \n": true, "{}": false} {
		body := strings.NewReader(`{"device_keys":{}}` + after)
		read := 0
		_, _, err := crypto.Sift(nil, readerFunc(func(p []byte) (int, error) {
			n, err := body.Read(p[:min(len(p), 18)])
			if err == io.EOF {
				read++
			}
			return n, err
		}))
		if sound != (err == nil) || sound != (read > 0) {
			t.Errorf("with %q after it: %v; the end was read %d times", after, err, read)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
