package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someClaims() claims {
	return claims{
		purpose: purposeSelfContained, key: 3, record: 77, server: "example.org", mediaID: "AbC-_9", room: "!r:example.org",
		event: "$e", created: 1_699_999_000_123, expires: 1_700_000_000, mime: "image/png", disposition: inline, name: "photo.png",
	}
}

func TestProxy02_MAC_AnyBitOfAnyFieldFlipped_DoesNotHold(t *testing.T) {
	secret := testKey(3).Secret
	good := someClaims()
	m := good.sum(secret)
	if !good.holds(secret, m) {
		t.Fatal("the MAC does not hold to begin with")
	}
	fields := reflect.TypeFor[claims]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		width := 64
		switch v := reflect.ValueOf(good).Field(i); v.Kind() {
		case reflect.String:
			width = 8 * v.Len()
		case reflect.Uint8:
			width = 8
		}
		if width == 0 {
			t.Fatalf("field %s is empty in the test", name)
		}
		for bit := range width {
			bad := flip(good, i, bit)
			if bad == good {
				t.Fatalf("field %s bit %d: nothing was changed", name, bit)
			}
			if bad.holds(secret, m) {
				t.Errorf("field %s bit %d flipped: the MAC still holds", name, bit)
			}
		}
	}
	for bit := range 8 * macSize {
		bad := m
		bad[bit/8] ^= 1 << (bit % 8)
		if good.holds(secret, bad) {
			t.Errorf("bit %d of the MAC flipped: it still holds", bit)
		}
	}
}

// flip changes one bit of one field. It goes through the fields by name, since reflection may not set what is not exported.
func flip(c claims, field, bit int) claims {
	text := func(s *string) {
		b := []byte(*s)
		b[bit/8] ^= 1 << (bit % 8)
		*s = string(b)
	}
	switch reflect.TypeFor[claims]().Field(field).Name {
	case "purpose":
		s := string(c.purpose)
		text(&s)
		c.purpose = purpose(s)
	case "key":
		c.key ^= 1 << bit
	case "record":
		c.record ^= 1 << bit
	case "server":
		text(&c.server)
	case "mediaID":
		text(&c.mediaID)
	case "room":
		text(&c.room)
	case "event":
		text(&c.event)
	case "created":
		c.created ^= 1 << bit
	case "expires":
		c.expires ^= 1 << bit
	case "mime":
		text(&c.mime)
	case "disposition":
		text(&c.disposition)
	case "name":
		text(&c.name)
	}
	return c
}

func TestProxy02_MAC_TextMovedFromOneFieldToTheNext_IsAnotherMAC(t *testing.T) {
	secret := testKey(3).Secret
	a := claims{purpose: purposeSelfContained, server: "example.org", mediaID: "abc", room: "!r", event: "$e"}
	b := claims{purpose: purposeSelfContained, server: "example.or", mediaID: "gabc", room: "!r", event: "$e"}
	c := claims{purpose: purposeSelfContained, server: "example.org", mediaID: "abc", room: "!r$e", event: ""}
	if a.sum(secret) == b.sum(secret) || a.sum(secret) == c.sum(secret) {
		t.Error("two different claims have one MAC")
	}
}

func TestProxy02_MAC_ShortLinkAndSelfContainedLink_HaveDifferentMACs(t *testing.T) {
	secret := testKey(3).Secret
	a, b := claims{purpose: purposeShort, record: 5}, claims{purpose: purposeSelfContained, record: 5}
	if a.sum(secret) == b.sum(secret) {
		t.Error("a MAC made for one form holds for the other")
	}
}

// Others let the length of the MAC be configured, down to nothing.
func TestProxy02_MAC_CutOrLonger_IsRefused(t *testing.T) {
	s, stored := newStage(t), newStoredStage(t)
	link, short := s.link(photo()), stored.link(photo())
	at := strings.Index(link, "&mac=") + len("&mac=")
	sum, err := tokenEncoding.DecodeString(link[at:])
	if err != nil || len(sum) != 16 {
		t.Fatalf("the MAC has %d bytes: %v", len(sum), err)
	}
	token, err := tokenEncoding.DecodeString(short[3:37])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 8, 15, 17, 32} {
		wantStatus(t, s.get(link[:at]+tokenEncoding.EncodeToString(append(sum, make([]byte, 16)...)[:n])), 404)
		wantStatus(t, stored.get("/m/"+tokenEncoding.EncodeToString(append(token, make([]byte, 16)...)[:9+n])+"/photo.png"), 404)
	}
	wantStatus(t, s.get(link[:at-len("&mac=")]), 404)
	wantStatus(t, s.get(link), 200)
	wantStatus(t, stored.get(short), 200)
}

func TestProxy01_Token_HasExactly34Characters(t *testing.T) {
	for _, record := range []int64{1, 77, 1<<63 - 1} {
		token := formatToken(255, record, mac{0xff, 15: 0xff})
		if len(token) != 34 {
			t.Errorf("record %d: %d characters", record, len(token))
		}
		key, got, m, ok := parseToken(token)
		if !ok || key != 255 || got != record || m != (mac{0xff, 15: 0xff}) {
			t.Errorf("record %d: came back as key %d, record %d, %x, %v", record, key, got, m, ok)
		}
	}
}

func TestProxy02_Token_AnyBitOfAnyCharacterFlipped_IsRefused(t *testing.T) {
	keys, err := StaticKeys(testKey(1), testKey(2), testKey(3))
	if err != nil {
		t.Fatal(err)
	}
	c := claims{purpose: purposeShort, key: 2, record: 1<<40 + 12345}
	token := formatToken(c.key, c.record, c.sum(testKey(2).Secret))
	for i := range len(token) {
		for bit := range 8 {
			b := []byte(token)
			b[i] ^= 1 << bit
			got, m, ok := parseShort(string(b) + "/photo.png")
			if ok && keys.verify(&got, m) {
				t.Errorf("character %d bit %d flipped: accepted", i, bit)
			}
		}
	}
	for n := range len(token) {
		if _, _, ok := parseShort(token[:n]); ok {
			t.Errorf("accepted when cut to %d characters", n)
		}
	}
	for _, s := range []string{token + "A", token + "=", token + "==", "\n" + token[1:], token[:33] + "\n", strings.Repeat("\r\n", 17)} {
		if _, _, ok := parseShort(s); ok {
			t.Errorf("accepted %q", s)
		}
	}
}

// BenchmarkProxy02_LinkCheck takes a short link apart and checks its MAC, beside one HMAC-SHA256 over as many bytes.
func BenchmarkProxy02_LinkCheck(b *testing.B) {
	key := testKey(7)
	keys, err := StaticKeys(key)
	if err != nil {
		b.Fatal(err)
	}
	path, ok := keys.path(&claims{purpose: purposeShort, record: 4711}, "photo.jpg")
	if !ok {
		b.Fatal("there is no key to sign with")
	}
	check := func() {
		c, m, ok := parseLink(path, "")
		if !ok || !keys.verify(&c, m) {
			b.Fatal("the link does not hold")
		}
	}
	// The two take turns, and the quickest of each counts: whatever else the machine does makes others slower.
	covered := make([]byte, len(purposeShort)+1+1+3*8+13*4)
	const turn = 100
	checks, sums := time.Hour, time.Hour
	for b.Loop() {
		begun := time.Now()
		for range turn {
			check()
		}
		checks = min(checks, time.Since(begun))
		begun = time.Now()
		for range turn {
			h := hmac.New(sha256.New, key.Secret)
			h.Write(covered)
			h.Sum(nil)
		}
		sums = min(sums, time.Since(begun))
	}
	b.ReportMetric(float64(checks)/turn, "ns/op")
	b.ReportMetric(float64(checks)/float64(sums), "x-hmac")
}
