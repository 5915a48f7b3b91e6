package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/pipenet"
	"github.com/trestle-bridge/trestle/store"
)

const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

func longText() Page {
	return Page{
		Author: "Alice", Text: "first line\nsecond <b>line</b>", Room: "!room:example.org", Event: "$event", Sender: "@alice:example.org",
		Written: time.Unix(1_600_000_000, 0),
	}
}

// page makes a page and gives its link without the host.
func (s *stage) page(p Page) string {
	s.tb.Helper()
	link, err := s.signer.Page(context.Background(), p)
	if err != nil {
		s.tb.Fatal(err)
	}
	return strings.TrimPrefix(link, testPublic)
}

func known(c *ServerConfig) { c.PublicURL = testPublic + "/" }

func (s *stage) change(change func(tx store.MediaTx) error) {
	s.tb.Helper()
	if err := s.store.ChangeMedia(context.Background(), change); err != nil {
		s.tb.Fatal(err)
	}
}

func TestProxy21_LongText_IsAPageForBrowsersAndTextForCurl(t *testing.T) {
	s := newStoredStage(t)
	link := s.page(longText())
	if !regexp.MustCompile(`^/m/[\w-]{34}/text$`).MatchString(link) {
		t.Errorf("the link is %s", link)
	}
	for _, accept := range []string{"", "*/*", "text/plain, text/html;q=0.5", "text/html;q=0"} {
		resp := s.get(link, "Accept", accept)
		wantStatus(t, resp, 200)
		wantHeader(t, resp, "Content-Type", "text/plain; charset=utf-8")
		if got := bodyOf(t, resp); got != "first line\nsecond <b>line</b>\n" {
			t.Errorf("Accept %q: %q", accept, got)
		}
	}
	resp := s.get(link, "Accept", browser)
	for name, value := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "private, no-cache", "Vary": "Accept", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow, noarchive",
	} {
		wantHeader(t, resp, name, value)
	}
	body := bodyOf(t, resp)
	for _, want := range []string{`<bdi>Alice</bdi>`, "first line\nsecond &lt;b&gt;line&lt;/b&gt;", "width=device-width", "13 September 2020, 12:26 UTC", "here until 14 December 2023"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q:\n%s", want, body)
		}
	}
	if asked := s.hs.requests(); len(asked) != 0 {
		t.Error("the homeserver was asked")
	}
}

func TestProxy21_Page_Head_HasTheHeadersOfGet(t *testing.T) {
	s := newStoredStage(t)
	link := s.page(longText())
	for _, accept := range []string{browser, "*/*"} {
		get, head := s.get(link, "Accept", accept), s.do(http.MethodHead, link, "Accept", accept)
		wantStatus(t, head, 200)
		for name := range get.Header {
			wantHeader(t, head, name, get.Header.Get(name))
		}
		if bodyOf(t, head) != "" {
			t.Error("HEAD has a body")
		}
	}
}

func TestProxy21_Page_Conditionals_ApplyToEachForm(t *testing.T) {
	s := newStoredStage(t)
	link := s.page(longText())
	etag := s.get(link, "Accept", browser).Header.Get("ETag")
	if plain := s.get(link).Header.Get("ETag"); etag == "" || plain == etag {
		t.Errorf("the two forms have the ETags %s and %s", etag, plain)
	}
	resp := s.get(link, "Accept", browser, "If-None-Match", etag)
	wantStatus(t, resp, 304)
	wantHeader(t, resp, "Vary", "Accept")
	wantHeader(t, resp, "ETag", etag)
	wantStatus(t, s.get(link, "If-None-Match", etag), 200)
	wantStatus(t, s.get(link, "Accept", browser, "If-Match", `"other"`), 412)
	if _, err := edit(s, "newer", "@alice:example.org", 2); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, s.get(link, "Accept", browser, "If-None-Match", etag), 200)
}

// edit edits the page of longText, a number of seconds after it was written.
func edit(s *stage, text string, by string, after int64) (found bool, err error) {
	p := longText()
	p.Text, p.Written, p.Edit = text, p.Written.Add(time.Duration(after)*time.Second), "$edit"
	p.Sender = id.UserID(by)
	err = s.store.ChangeMedia(context.Background(), func(tx store.MediaTx) error {
		found, err = EditPage(tx, p)
		return err
	})
	return found, err
}

func TestProxy21_Page_EditedMessage_ShowsTheNewTextUnderTheOldLink(t *testing.T) {
	s := newStoredStage(t)
	link := s.page(longText())
	if found, err := edit(s, "better words", "@alice:example.org", 60); !found || err != nil {
		t.Fatal(found, err)
	}
	if got := bodyOf(t, s.get(link)); got != "better words\n" {
		t.Errorf("the page says %q", got)
	}
	if body := bodyOf(t, s.get(link, "Accept", browser)); !strings.Contains(body, "edited 13 September 2020, 12:27 UTC") {
		t.Errorf("the page does not say that it was edited:\n%s", body)
	}
	if found, err := edit(s, "forged", "@mallory:example.org", 120); found || err != nil {
		t.Error("a stranger edited the page:", found, err)
	}
	if found, _ := edit(s, "late", "@alice:example.org", 30); found {
		t.Error("an older edit came after a newer one")
	}
	if got := bodyOf(t, s.get(link)); got != "better words\n" {
		t.Errorf("the page says %q", got)
	}
	again := longText()
	again.Text, again.Written = "long again", again.Written.Add(time.Hour)
	if other := s.page(again); other != link {
		t.Errorf("an edit has the link %s, the message %s", other, link)
	}
	if got := bodyOf(t, s.get(link)); got != "long again\n" {
		t.Errorf("the page says %q", got)
	}
}

func TestProxy21_Page_RedactedMessage_IsGoneOnEveryReplicaAndFromTheStore(t *testing.T) {
	onBothEngines(t, func(t *testing.T, s *stage, uri string) {
		r := s.replica(t, uri)
		link := s.page(longText())
		c, _ := parse(t, link)
		wantStatus(t, r.get(link), 200)
		redact(t, s)
		for _, x := range []*stage{s, r} {
			resp := x.get(link, "Accept", browser)
			wantStatus(t, resp, 410)
			if body := bodyOf(t, resp); strings.Contains(body, "first line") {
				t.Error("the text is still served")
			}
		}
		if _, err := s.store.MediaPage(t.Context(), c.record); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the text is still in the store: %v", err)
		}
		wantStatus(t, s.get(s.page(longText())), 410) // tried again after the redaction
	})
}

func TestProxy21_Page_HasTheStatusesOfMedia(t *testing.T) {
	s := newStoredStage(t)
	link := s.page(longText())
	c, m := parse(t, link)
	m[3] ^= 1
	wantStatus(t, s.get(c.path(m, "text")), 404)
	wantStatus(t, s.do(http.MethodPost, link), 405)
	wantStatus(t, s.do(http.MethodOptions, link), 204)
	wantStatus(t, s.get(s.small(link, "t320")), 404)
	s.clock.Advance(DefaultLifetime + time.Second)
	wantStatus(t, s.get(link), 410)
	s.clock.Advance(-time.Hour)
	wantStatus(t, s.get(link), 200)
	s.change(func(tx store.MediaTx) error {
		_, err := tx.RevokeLinks(store.MediaScope{Room: "!room:example.org"})
		return err
	})
	wantStatus(t, s.get(link), 410)
	again, err := s.signer.Again(t.Context(), c.record)
	if err != nil {
		t.Fatal(err)
	}
	if got := bodyOf(t, s.get(strings.TrimPrefix(again, testPublic))); got != "first line\nsecond <b>line</b>\n" {
		t.Errorf("signed again it says %q", got)
	}
}

func TestProxy21_Pages_EachHaveALimitOfTheirOwn(t *testing.T) {
	s := newStoredStage(t, func(c *ServerConfig) { c.Rates.Media = Rate{1, -1} })
	other := longText()
	other.Event = "$other"
	first, second := s.page(longText()), s.page(other)
	wantStatus(t, s.get(first), 200)
	wantStatus(t, s.get(second), 200)
	wantStatus(t, s.get(first), 429)
}

func gallery() Page {
	p := longText()
	p.Text = "my <i>cats</i>"
	p.Files = []Media{mediaOf("photo", "image/png", `one"><script>.png`), mediaOf("two", "image/png", ""), mediaOf("three", "application/pdf", "paper.pdf")}
	p.Files[0].Size, p.Files[0].Width, p.Files[0].Height = 1_234_567, 1600, 1200
	return p
}

// tree parses a page.
func tree(tb testing.TB, page string) (elements map[string][]map[string]string) {
	tb.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		tb.Fatal(err)
	}
	elements = make(map[string][]map[string]string)
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			attributes := make(map[string]string)
			for _, a := range n.Attr {
				attributes[a.Key] = a.Val
			}
			elements[n.Data] = append(elements[n.Data], attributes)
		}
	}
	return elements
}

func TestProxy21_Gallery_ShowsThumbnailsThatLeadToTheFiles(t *testing.T) {
	s := newStoredStage(t, known)
	s.hs.put("photo 320x240", "image/png", string(smallPNG))
	s.hs.put("photo 800x600", "image/png", string(smallPNG))
	s.hs.put("three", "application/pdf", "%PDF-1")
	link := s.page(gallery())
	for _, opened := range []string{link, strings.TrimSuffix(link, "/gallery"), strings.TrimSuffix(link, "gallery")} {
		page := bodyOf(t, s.get(opened, "Accept", browser))
		e := tree(t, page)
		if len(e["img"]) != 2 || len(e["a"]) != 3 || len(e["script"]) != 0 {
			t.Fatalf("the page has %d pictures, %d links and %d scripts:\n%s", len(e["img"]), len(e["a"]), len(e["script"]), page)
		}
		base, err := url.Parse(testPublic + opened)
		if err != nil {
			t.Fatal(err)
		}
		open := func(ref string) *http.Response {
			at, err := base.Parse(ref)
			if err != nil {
				t.Fatal(err)
			}
			return s.get(strings.TrimPrefix(at.String(), testPublic))
		}
		if got := bodyOf(t, open(e["a"][0]["href"])); got != string(png) {
			t.Error("the first link does not lead to the picture")
		}
		wantHeader(t, open(e["a"][2]["href"]), "Content-Type", "application/pdf")
		if got := bodyOf(t, open(e["img"][0]["src"])); got != string(smallPNG) {
			t.Error("the page does not show the thumbnail")
		}
		if e["img"][0]["alt"] == "" || e["img"][0]["width"] != "1600" {
			t.Errorf("the first picture is %v", e["img"][0])
		}
	}
	page := bodyOf(t, s.get(link, "Accept", browser))
	for _, want := range []string{"1.2 MB, 1600×1200", "my &lt;i&gt;cats", `property="og:image" content="https://bridge.example/m/t800/`, `property="og:url" content="https://bridge.example/m/`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if plain := bodyOf(t, s.get(link)); strings.Count(plain, "\n") != 4 || strings.Count(plain, ": https://bridge.example/m/") != 3 || !strings.HasPrefix(plain, "my <i>cats</i>\n") {
		t.Errorf("curl is told %q", plain)
	}
	redact(t, s)
	e := tree(t, page)
	for _, ref := range []string{e["a"][0]["href"], e["img"][0]["src"]} {
		at, _ := url.Parse(testPublic + link)
		at, _ = at.Parse(ref)
		wantStatus(t, s.get(strings.TrimPrefix(at.String(), testPublic)), 410)
	}
}

func TestProxy21_Gallery_SignedAgain_LeadsToFilesThatOpen(t *testing.T) {
	s := newStoredStage(t)
	c, _ := parse(t, s.page(gallery()))
	s.clock.Advance(time.Second)
	s.change(func(tx store.MediaTx) error { _, err := tx.RevokeLinks(store.MediaScope{}); return err })
	s.clock.Advance(time.Second)
	again, err := s.signer.Again(t.Context(), c.record)
	if err != nil {
		t.Fatal(err)
	}
	link := strings.TrimPrefix(again, testPublic)
	e := tree(t, bodyOf(t, s.get(link, "Accept", browser)))
	wantStatus(t, s.get("/m/"+strings.TrimPrefix(e["a"][0]["href"], "../")), 200)
}

// Whoever has a leaked key can open any page. What it gives away must die with that key, not with the one that signs by then.
func TestProxy04_PageOpenedWithAnOldKey_GivesLinksThatDieWithIt(t *testing.T) {
	s := newStoredStage(t, known)
	link := s.page(gallery())
	if _, err := s.signer.Keys().Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(settle)
	if c, _ := parse(t, s.page(longText())); c.key != 2 {
		t.Fatalf("key %d signs", c.key)
	}
	opened := bodyOf(t, s.get(link, "Accept", browser)) + bodyOf(t, s.get(link))
	given := regexp.MustCompile(`(?:/m/|"\.\./)((?:t\d+/)?[\w-]{34})`).FindAllStringSubmatch(opened, -1)
	if len(given) < 10 {
		t.Fatalf("the page has %d links:\n%s", len(given), opened)
	}
	if err := s.signer.Keys().Retire(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for _, g := range given {
		wantStatus(t, s.get("/m/"+g[1]), 404)
	}
}

func TestProxy21_Page_PolicyAllowsItsStyleAndNothingThatRuns(t *testing.T) {
	s := newStoredStage(t)
	resp := s.get(s.page(gallery()), "Accept", browser)
	policy, page := resp.Header.Get("Content-Security-Policy"), bodyOf(t, resp)
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(page)
	sum := sha256.Sum256([]byte(style[1]))
	for _, want := range []string{"sandbox", "default-src 'none'", "form-action 'none'", "frame-ancestors 'none'", "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy %q has no %s", policy, want)
		}
	}
	for _, not := range []string{"unsafe", "script-src", "http", "allow-scripts", "allow-same-origin", "*"} {
		if strings.Contains(policy, not) {
			t.Errorf("the policy %q has %s", policy, not)
		}
	}
	if regexp.MustCompile(`(?i)<script|\son\w+=|style=|https?://`).MatchString(page) {
		t.Errorf("the page has what it should not:\n%s", page)
	}
}

func TestProxy21_Page_ControlCharacters_ReachNeitherPageNorTerminal(t *testing.T) {
	s := newStoredStage(t)
	p := longText()
	p.Author, p.Text = "Al\x1b[31m\nice\xff", "a\x1b]0;owned\x07b\r\nc\u2028d\x00\u009b31m\te\x7f\xfe"
	link := s.page(p)
	if got, want := bodyOf(t, s.get(link)), "a]0;ownedb\nc\nd31m\te\ufffd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if page := bodyOf(t, s.get(link, "Accept", browser)); !strings.Contains(page, "<bdi>Al[31m ice\ufffd</bdi>") {
		t.Errorf("the author is not clean:\n%s", page)
	}
}

func TestProxy21_Page_TooMuch_IsRefused(t *testing.T) {
	s := newStoredStage(t)
	p := longText()
	p.Text = strings.Repeat("x", maxPageText+1)
	if _, err := s.signer.Page(t.Context(), p); !errors.Is(err, ErrTooMuch) {
		t.Errorf("got %v", err)
	}
	p = longText()
	p.Files = []Media{mediaOf("../x", "image/png", "")}
	if _, err := s.signer.Page(t.Context(), p); !errors.Is(err, ErrBadMedia) {
		t.Errorf("got %v", err)
	}
}

func FuzzPrefersHTML(f *testing.F) {
	for _, accept := range []string{"", "*/*", browser, "text/html;q=0.1,text/plain", "text/html; q=NaN", "TEXT/HTML ; Q=\"1\"", ",;,;=,", "text/plain;q=1e309"} {
		f.Add(accept)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		if prefersHTML([]string{accept}) && !strings.Contains(strings.ToLower(accept), "html") {
			t.Errorf("%q names no HTML", accept)
		}
	})
}

func FuzzPage_WhateverIsWritten_IsTextOnThePage(f *testing.F) {
	f.Add("Alice", "<script>alert(1)</script>", `"><img src=x onerror=alert(1)>.png`)
	f.Add("</title><script>", "a\x00b\r\n\u2028", "</style>")
	f.Add("{{.Style}}", "&lt;b&gt; &#60;", "javascript:alert(1)")
	f.Fuzz(func(t *testing.T, author, text, name string) {
		p := Page{Author: author, Text: text}
		body, err := p.body()
		if err != nil {
			return
		}
		v := &pageView{Title: body.Author, Author: body.Author, Text: body.Text, Excerpt: excerpt(body.Text),
			Files: []fileView{{Link: "../x", Small: "../s", Large: "../l", Name: cleanName(name)}}}
		var page strings.Builder
		if err := v.html(&page); err != nil {
			t.Fatal(err)
		}
		e := tree(t, page.String())
		if len(e["script"]) != 0 || len(e["img"]) != 1 || len(e["style"]) != 1 || len(e["a"]) != 1 || len(e["img"][0]) > 5 {
			t.Errorf("something was written into the page:\n%s", page.String())
		}
		root, _ := html.Parse(strings.NewReader(page.String()))
		for n := range root.Descendants() {
			if n.Type == html.ElementNode && n.Data == "div" && n.FirstChild != nil && n.FirstChild.Data != body.Text && !strings.Contains(body.Text, "\ufffd") {
				t.Errorf("the text %q is shown as %q", body.Text, n.FirstChild.Data)
			}
		}
	})
}

func TestProxy07_Redaction_CutsAPageWhoseReaderIsSlow(t *testing.T) {
	s := newStoredStage(t)
	p := longText()
	p.Text = strings.Repeat("'", maxPageText) // five bytes each in HTML
	request := "GET " + s.page(p) + " HTTP/1.1\r\nHost: bridge\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
	l := pipenet.Listen() // holds nothing of what is on its way
	front := &http.Server{Handler: s.server}
	served := make(chan error, 1)
	go func() { served <- front.Serve(l) }()
	conn := l.Dial()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.change(func(tx store.MediaTx) error { _, err := tx.RevokeMedia("!room:example.org", "$event"); return err })
	for !strings.Contains(s.log.String(), `"cut":"revoked"`) {
		time.Sleep(time.Millisecond)
	}
	if rest, _ := io.Copy(io.Discard, conn); rest > chunk {
		t.Errorf("%d bytes came after the redaction", rest)
	}
	_ = front.Close()
	<-served
}
