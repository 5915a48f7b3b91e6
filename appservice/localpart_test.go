package appservice

import (
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"
)

func TestEscapeLocalpart_Table(t *testing.T) {
	for in, want := range map[string]string{"nick": "nick", "Nick": "=4eick", "a b": "a=20b", "á": "=c3=a1", "x=y": "x=3dy", "[a]|_^{}`-": "=5ba=5d=7c_=5e=7b=7d=60-", "": ""} {
		got := EscapeLocalpart(in)
		if got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
		if back, err := UnescapeLocalpart(got); err != nil || back != in {
			t.Errorf("%q came back as %q %v", in, back, err)
		}
	}
	for _, bad := range []string{"=", "=4", "=4E", "=61", "Nick", "a b", "=zz", "á"} {
		if got, err := UnescapeLocalpart(bad); err == nil {
			t.Errorf("%q was taken as %q", bad, got)
		}
	}
}

// The limit is one of the whole user ID, in bytes. A name that is too long has no ghost: cutting or hashing it would make
// two names one, or one that nobody can turn back.
func TestLocalpart_LongerThanAUserIDMayBe_IsRefusedForGood(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	room := maxUserID - len("@irc_:hs.test")
	for _, c := range []struct {
		name  string
		taken bool
	}{
		{strings.Repeat("a", room), true}, {strings.Repeat("a", room+1), false},
		{strings.Repeat("A", room/3), true}, {strings.Repeat("A", room/3+1), false},
	} {
		err := f.as.Ghost(id.UserID("@irc_" + EscapeLocalpart(c.name) + ":hs.test")).EnsureRegistered(t.Context())
		if (err == nil) != c.taken || IsPermanent(err) == c.taken || err != nil && !strings.Contains(err.Error(), "the limit is 255") {
			t.Errorf("%d bytes: %v", len(c.name), err)
		}
	}
}

// FuzzEscapeLocalpart_EveryNameHasItsOwnGhost: what is made of any name is valid, inside of the namespace, its own, and leads back.
func FuzzEscapeLocalpart_EveryNameHasItsOwnGhost(f *testing.F) {
	for _, pair := range [][2]string{{"nick", "Nick"}, {"Nick[away]", "nick[away]"}, {"á", "=c3=a1"}, {"=", "=3d"}, {"\x00\xff", "\xff\x00"}, {"", " "}, {":hs.test", "\n"}, {"a:evil.test", "@a"}} {
		f.Add(pair[0], pair[1])
	}
	as := bareAppService(f)
	f.Fuzz(func(t *testing.T, a, b string) {
		escaped := EscapeLocalpart(a)
		if back, err := UnescapeLocalpart(escaped); err != nil || back != a {
			t.Fatalf("%q became %q and came back as %q %v", a, escaped, back, err)
		}
		if other := EscapeLocalpart(b); (other == escaped) != (a == b) {
			t.Fatalf("%q is %q, and %q is %q", a, escaped, b, other)
		}
		user := id.UserID("@irc_" + escaped + ":" + testServer)
		if !as.IsGhost(user) || user.Homeserver() != testServer {
			t.Fatalf("%q is outside of the namespace", user)
		}
		if err := checkUserID(user, testServer); (err == nil) != (len(user) <= maxUserID) {
			t.Fatalf("%q: %v", user, err)
		}
		if len(escaped) > 3*len(a) {
			t.Fatalf("%q became %d bytes", a, len(escaped))
		}
	})
}

// FuzzUnescapeLocalpart_WhatItTakesIsWhatEscapeWrites: and all else is refused.
func FuzzUnescapeLocalpart_WhatItTakesIsWhatEscapeWrites(f *testing.F) {
	for _, s := range []string{"nick", "=4eick", "=4Eick", "=61", "=3d", "=", "=4", "a=20b", "á", "a:b", "=c3=a1", "=c3", "a/../b+c.d_e-f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		plain, err := UnescapeLocalpart(s)
		if err == nil && EscapeLocalpart(plain) != s {
			t.Fatalf("%q means %q, which is escaped as %q", s, plain, EscapeLocalpart(plain))
		}
		if bad := checkCharacters(s); bad != nil && err == nil {
			t.Fatalf("%q was taken: %v", s, bad)
		}
	})
}

// bareAppService is one that is not started, and has no homeserver.
func bareAppService(tb testing.TB) *AppService {
	tb.Helper()
	as := &AppService{cfg: Config{ServerName: testServer}, botID: "@ircbot:" + testServer}
	re, err := compileNamespace(testRegistration().Namespaces.Users[0])
	if err != nil {
		tb.Fatal(err)
	}
	as.namespaces = append(as.namespaces, re)
	return as
}
