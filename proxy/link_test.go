package proxy

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func TestProxy02_SelfContained_AnyBitOfTheLinkFlipped_IsRefusedUnlessItIsTheNameForPeople(t *testing.T) {
	s := newStage(t)
	link := s.link(mediaOf("AbC-_9", "image/png", "photo.png"))
	nameAt := strings.Index(link, "/photo.png?")
	if nameAt < 0 {
		t.Fatal("the link has no name")
	}
	for i := range len(link) {
		if i > nameAt && i < nameAt+len("/photo.png") {
			continue
		}
		for bit := range 8 {
			b := []byte(link)
			b[i] ^= 1 << bit
			path, query, _ := strings.Cut(string(b), "?")
			c, m, ok := parseLink(path, query)
			if ok && s.server.keys.verify(&c, m) {
				t.Errorf("byte %d (%q) bit %d flipped: accepted", i, link[i], bit)
			}
		}
	}
	if got := s.requestsAfter(func() { s.get(link[:len(link)-1]) }); got != 0 {
		t.Errorf("the homeserver was asked %d times for a truncated link", got)
	}
}

func (s *stage) requestsAfter(do func()) int {
	before := len(s.hs.requests())
	do()
	return len(s.hs.requests()) - before
}

func TestProxy01_SelfContained_ParametersAddedRepeatedOrReordered_AreRefused(t *testing.T) {
	s := newStage(t)
	path, query, _ := strings.Cut(s.link(photo()), "?")
	parts := strings.Split(query, "&")
	for _, bad := range []string{
		query + "&width=1", query + "&mac=" + parts[len(parts)-1], "k=7&" + query, query + "&", "&" + query, query + ";x=1",
		strings.Join(append(parts[1:len(parts)-1], parts[0], parts[len(parts)-1]), "&"), query + "&x=", strings.Replace(query, "k=7", "k=07", 1),
		strings.Replace(query, "%2F", "%2f", 1), "",
	} {
		if _, _, ok := parseLink(path, bad); ok {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestProxy03_Link_NameChangedOrLeftOut_MeansTheSame(t *testing.T) {
	s := newStage(t)
	path, query, _ := strings.Cut(s.link(photo()), "?")
	bare := strings.TrimSuffix(path, "/photo.png")
	want := s.get(path + "?" + query)
	for _, name := range []string{"/other.exe", "/", "", "/%2e%2e%2f", "/a%20b"} {
		got := s.get(bare + name + "?" + query)
		wantStatus(t, got, 200)
		for _, h := range []string{"Content-Disposition", "Content-Type", "Etag", "Content-Length"} {
			if got.Header.Get(h) != want.Header.Get(h) {
				t.Errorf("name %q changes %s to %q", name, h, got.Header.Get(h))
			}
		}
	}
	for _, name := range []string{"/a/b", "//", "/" + strings.Repeat("a", maxSegment+1)} {
		wantStatus(t, s.get(bare+name+"?"+query), 404)
	}
}

func TestProxy01_ShortLink_FitsIn85Characters(t *testing.T) {
	c := claims{purpose: purposeShort, key: 1, record: 1 << 62}
	link := "https://" + strings.Repeat("h", 18) + c.path(mac{}, displayName(strings.Repeat("n", 16)+".jpg"))
	if len(link) > 85 {
		t.Errorf("%d characters", len(link))
	}
}

func TestProxy09_Grammar_ServerNames(t *testing.T) {
	for _, good := range []string{"example.org", "a", "localhost:8448", "1.2.3.4", "1.2.3.4:80", "[2001:db8::1]", "[::1]:8448", "xn--e1afmkfd.example"} {
		if !validServerName(good) {
			t.Errorf("refused %q", good)
		}
	}
	for _, bad := range []string{"", "..", "a..b", ".a", "a.", "a/b", "a%2fb", "a b", "a:", "a:123456", "a:8x", "[::1", "[::1]x", "[1.2.3.4]", "[fe80::1%25eth0]",
		"a@b", "a?b", "a#b", "ä.example", "a_b", strings.Repeat("a", 256), "a\n", "a\\b"} {
		if validServerName(bad) {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestProxy09_Grammar_MediaIDs(t *testing.T) {
	for _, good := range []string{"a", "AbC-_9", strings.Repeat("a", 255)} {
		if !validMediaID(good) {
			t.Errorf("refused %q", good)
		}
	}
	for _, bad := range []string{"", ".", "..", "a/b", "a%2fb", "a b", "a.b", "ä", strings.Repeat("a", 256), "a\n", "a+b", "a="} {
		if validMediaID(bad) {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestProxy09_SelfContained_OutOfGrammar_IsRefusedEvenWhenSigned(t *testing.T) {
	for _, bad := range [][2]string{{"example.org", "a.b"}, {"example.org", ".."}, {"example.org", ""}, {"..", "abc"}, {"a..b", "abc"}, {"a@b", "abc"}, {"a/../b", "abc"}, {"", "abc"}} {
		c := claims{purpose: purposeSelfContained, key: 7, server: bad[0], mediaID: bad[1], disposition: inline}
		path, query, _ := strings.Cut(c.path(c.sum(testKey(7).Secret), "x"), "?")
		if _, _, ok := parseLink(path, query); ok {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestProxy09_Signer_BadOrEncryptedMedia_GetsNoLink(t *testing.T) {
	s := newStage(t)
	for _, uri := range []id.ContentURI{{}, {Homeserver: "example.org"}, {Homeserver: "..", FileID: "a"}, {Homeserver: "example.org", FileID: "../x"}, {Homeserver: "a/b", FileID: "x"}} {
		if _, err := s.signer.SelfContained(Media{URI: uri}); !errors.Is(err, ErrBadMedia) {
			t.Errorf("%v: %v", uri, err)
		}
	}
	m := photo()
	m.Encrypted = &event.EncryptedFileInfo{}
	if _, err := s.signer.SelfContained(m); !errors.Is(err, ErrEncrypted) {
		t.Errorf("encrypted: %v", err)
	}
	if _, err := s.signer.Short(t.Context(), photo()); !errors.Is(err, ErrNoStore) {
		t.Errorf("short without a store: %v", err)
	}
}

func TestSigner_BadPublicURL_IsNamed(t *testing.T) {
	keys, err := StaticKeys(testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "bridge.example", "ftp://x", "https://", "https://u:p@x", "https://x?y", "https://x#y", ":"} {
		if _, err := NewSigner(t.Context(), SignerConfig{PublicURL: bad, Keys: keys}); err == nil || strings.Contains(err.Error(), "u:p@") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	s, err := NewSigner(t.Context(), SignerConfig{PublicURL: "https://x.example/media-of-bridge/", Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	if link, err := s.SelfContained(photo()); err != nil || !strings.HasPrefix(link, "https://x.example/media-of-bridge/media/example.org/photo/photo.png?") {
		t.Errorf("%v", err)
	}
}

func TestProxy01_SelfContained_SaysWhatItWasGiven(t *testing.T) {
	s := newStage(t)
	m := mediaOf("AbC", "image/svg+xml; charset=utf-8", "a b.svg")
	m.URI.Homeserver = "[2001:db8::1]:8448"
	m.Expires = time.Unix(1_700_000_099, 0)
	c, _ := parse(t, s.link(m))
	want := claims{
		purpose: purposeSelfContained, key: 7, server: "[2001:db8::1]:8448", mediaID: "AbC", room: "!room:example.org", event: "$event",
		created: s.clock.Now().UnixMilli(), expires: 1_700_000_099, mime: "image/svg+xml", disposition: attachment, name: "a b.svg",
	}
	if c != want {
		t.Errorf("got %+v", c)
	}
}

func FuzzParseLink(f *testing.F) {
	c := someClaims()
	m := c.sum(testKey(3).Secret)
	path, query, _ := strings.Cut(c.path(m, "photo.png"), "?")
	f.Add(path, query)
	short := claims{purpose: purposeShort, key: 1, record: 9}
	f.Add(short.path(m, "a.jpg"), "")
	short.purpose = thumbnailSizes[0].purpose
	f.Add(short.path(m, "a.jpg"), "")
	f.Add("/media/../../etc/passwd", "mac=x")
	f.Add("/media/a%2fb/c", "k=1&mac=AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, path, query string) {
		c, m, ok := parseLink(path, query)
		if !ok {
			return
		}
		switch c.purpose {
		case purposeShort, thumbnailSizes[0].purpose, thumbnailSizes[1].purpose:
			if c.record <= 0 || c.server != "" {
				t.Errorf("%+v", c)
			}
		case purposeSelfContained:
			if !validServerName(c.server) || !validMediaID(c.mediaID) || strings.ContainsAny(c.server+c.mediaID, "/\\%") {
				t.Errorf("out of grammar: %+v", c)
			}
			if _, q, _ := strings.Cut(c.path(m, ""), "?"); q != query {
				t.Errorf("two spellings: %q and %q", q, query)
			}
		default:
			t.Errorf("no purpose: %+v", c)
		}
		u, err := url.Parse(c.path(m, "x"))
		if err != nil {
			t.Fatal(err)
		}
		again, m2, ok := parseLink(u.EscapedPath(), u.RawQuery)
		if !ok || again != c || m2 != m {
			t.Errorf("came back as %+v", again)
		}
	})
}
