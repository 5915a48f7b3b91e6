package bridge_test

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	mx "maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
)

// picture is a PNG of some size.
func picture(t *testing.T, width, height int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sealed uploads an encrypted file and gives the `file` of its event.
func (c *crossing) sealed(plain []byte) map[string]any {
	c.Helper()
	file, data := mx.NewEncryptedFile(), bytes.Clone(plain)
	file.EncryptInPlace(data)
	uri := must(c.alice.Upload(c.ctx, "", "application/octet-stream", data))(c.T)
	return map[string]any{
		"url": uri.String(), "v": "v2", "iv": file.InitVector, "hashes": map[string]string{"sha256": file.Hashes.SHA256},
		"key": map[string]any{"kty": "oct", "alg": "A256CTR", "k": file.Key.Key, "ext": true, "key_ops": []string{"encrypt", "decrypt"}},
	}
}

// next sends an event and gives what the network got of it.
func (c *crossing) next(content map[string]any) (id.EventID, bridge.Message) {
	c.Helper()
	before := len(c.net.Sent())
	sent := must(c.alice.Send(c.ctx, c.room, "m.room.message", content))(c.T)
	c.ok(c.net.Wait(c.ctx, "the message", func() bool { return len(c.net.Sent()) == before+1 }))
	return sent, c.net.Sent()[before]
}

// opens gives what a browser is shown.
func (c *crossing) opens(url, accept string) (status int, contentType, body string) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, url, nil)
	c.ok(err)
	r.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(r)
	c.ok(err)
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	c.ok(err)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(data)
}

func TestProxy16_PhotoWithKeys_HasALinkThatShowsIt(t *testing.T) {
	c := newCrossing(t)
	photo := picture(t, 40, 30)
	event, got := c.next(map[string]any{
		"msgtype": "m.image", "body": "photo.png", "file": c.sealed(photo), "info": map[string]any{"mimetype": "image/png", "size": len(photo), "w": 40, "h": 30},
	})
	if got.Media == nil || got.Media.URL == "" || got.Text != "" {
		t.Fatalf("the network got %+v", got)
	}
	status, contentType, body := c.opens(got.Media.URL, "*/*")
	if status != 200 || contentType != "image/png" || body != string(photo) {
		t.Errorf("the link gives %d, %s and %d bytes", status, contentType, len(body))
	}
	must(c.alice.Redact(c.ctx, c.room, event, ""))(t)
	c.becomes(got.Media.URL, http.StatusGone)
	file := c.sealed(photo)
	file["iv"] = "none"
	if _, got := c.next(map[string]any{"msgtype": "m.image", "body": "photo.png", "file": file}); got.Media.URL != "" || !strings.Contains(got.Text, "no valid keys") {
		t.Errorf("a photo whose keys are none came as %+v", got)
	}
}

func TestProxy21_GalleriesOfEveryKind_AreOnePage(t *testing.T) {
	c := newCrossing(t)
	photo := picture(t, 1000, 10)
	uri := must(c.alice.Upload(c.ctx, "one.png", "image/png", photo))(t)
	plain := map[string]any{"itemtype": "m.image", "body": "one.png", "url": uri.String(), "info": map[string]any{"mimetype": "image/png", "size": len(photo), "w": 1000, "h": 10}}
	sealed := map[string]any{
		"itemtype": "m.image", "body": "two.png", "file": c.sealed(photo),
		"info": map[string]any{"mimetype": "image/png", "size": len(photo), "thumbnail_file": c.sealed(picture(t, 9, 9)), "thumbnail_info": map[string]any{"mimetype": "image/png"}},
	}
	keyless := c.sealed(photo)
	keyless["iv"] = "none"
	bad := func(name, key string, value any) any {
		return map[string]any{"itemtype": "m.image", "body": name, key: value}
	}
	items := []any{plain, bad("bad.png", "url", "nonsense"), bad("grammar.png", "url", "mxc://hs.test/a.b"), bad("keyless.png", "file", keyless), sealed, "nonsense"}
	for _, content := range []map[string]any{
		{"msgtype": "m.gallery", "body": "my cats", "itemtypes": items},
		{"msgtype": "dm.filament.gallery", "body": "my cats", "itemtypes": items},
		{"msgtype": "com.beeper.gallery", "body": "", "com.beeper.gallery.images": []any{plain, sealed}, "com.beeper.gallery.caption": "my cats"},
		{"msgtype": "m.gallery", "body": "* my cats", "itemtypes": []any{}, "m.new_content": map[string]any{"msgtype": "m.gallery", "body": "my cats", "itemtypes": items},
			"m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": "$before"}},
	} {
		event, got := c.next(content)
		if got.Kind != bridge.KindGallery || got.Media == nil || got.Media.Files != 2 || got.Media.Name != "2 pictures" || got.Media.Size != int64(2*len(photo)) ||
			strings.TrimPrefix(got.Text, "* ") != "my cats" {
			t.Fatalf("%s came as %+v %+v", content["msgtype"], got, got.Media)
		}
		_, contentType, page := c.opens(got.Media.URL, "text/html")
		if !strings.HasPrefix(contentType, "text/html") || !strings.Contains(page, "one.png") || !strings.Contains(page, "two.png") {
			t.Fatalf("the page is %s", page)
		}
		small := regexp.MustCompile(`src="\.\./(t320/[^"]+)"`).FindAllStringSubmatch(page, -1)
		if len(small) != 2 {
			t.Fatalf("the page has %d thumbnails: %s", len(small), page)
		}
		base := got.Media.URL[:strings.Index(got.Media.URL, "/m/")+3]
		for i, wide := range []int{320, 9} {
			_, _, data := c.opens(base+small[i][1], "image/*")
			size, _, err := image.DecodeConfig(strings.NewReader(data))
			if err != nil || size.Width != wide {
				t.Errorf("thumbnail %d is %d pixels wide, want %d (%v)", i, size.Width, wide, err)
			}
		}
		must(c.alice.Redact(c.ctx, c.room, event, ""))(t)
		if content["m.new_content"] == nil {
			c.becomes(got.Media.URL, http.StatusGone)
			c.becomes(base+small[0][1], http.StatusGone)
		}
	}
}

func TestProxy21_GalleryOfFilesThatNobodyCanOpen_SaysSo(t *testing.T) {
	c := newCrossing(t)
	_, got := c.next(map[string]any{"msgtype": "m.gallery", "body": "my cats", "itemtypes": []any{map[string]any{"itemtype": "m.image", "body": "a.png", "url": "mxc://hs.test/a.b"}}})
	if got.Kind != bridge.KindGallery || got.Media.URL != "" || got.Media.Name != "1 file" || got.Text != "my cats (the files have no valid addresses, or no valid keys)" {
		t.Errorf("the network got %+v %+v", got, got.Media)
	}
}

func TestProxy21_PageOfALongText_FollowsEditsAndRedactionsOfItsMessage(t *testing.T) {
	onEngines(t, func(c *crossing) {
		event, got := c.next(map[string]any{"msgtype": "m.text", "body": "a long text"})
		if got.TextLink == nil {
			c.Fatal("there is no page to be had")
		}
		link := must(got.TextLink(c.ctx))(c.T)
		if again := must(got.TextLink(c.ctx))(c.T); again != link {
			c.Errorf("asked twice it gave two links")
		}
		shows := func(want string) {
			c.Helper()
			if _, _, body := c.opens(link, "*/*"); body != want+"\n" {
				c.Errorf("the page says %q, want %q", body, want)
			}
		}
		shows("a long text")
		must(c.alice.SendEdit(c.ctx, c.room, event, "a short one"))(c.T)
		c.arrives("* a short one")
		shows("a short one")
		mallory := c.hs.User("mallory")
		c.ok(c.alice.Invite(c.ctx, c.room, mallory.ID()))
		must(mallory.Join(c.ctx, string(c.room)))(c.T)
		forgery := must(mallory.SendEdit(c.ctx, c.room, event, "forged"))(c.T)
		forged := c.arrives("* forged")
		shows("a short one")
		forgedLink := must(forged.TextLink(c.ctx))(c.T)
		shows("a short one")
		must(mallory.Redact(c.ctx, c.room, forgery, ""))(c.T)
		c.becomes(forgedLink, http.StatusGone)
		shows("a short one")
		listed := c.media(0, "list", "-event", string(event))
		if !strings.Contains(listed, "page: text") {
			c.Errorf("the list does not say that it is a page:\n%s", listed)
		}
		must(c.alice.Redact(c.ctx, c.room, event, ""))(c.T)
		c.becomes(link, http.StatusGone)
		if _, err := got.TextLink(c.ctx); err != nil {
			c.Error(err)
		}
		c.becomes(link, http.StatusGone)
	})
}

func TestProxy07_RedactedEdit_TakesItsLinksAndItsPageWithIt(t *testing.T) {
	c := newCrossing(t)
	event, got := c.next(map[string]any{"msgtype": "m.text", "body": "a long text"})
	link := must(got.TextLink(c.ctx))(t)
	edit := must(c.alice.SendEdit(c.ctx, c.room, event, "my password"))(t)
	c.arrives("* my password")
	if _, _, body := c.opens(link, "*/*"); body != "my password\n" {
		t.Fatalf("the page says %q", body)
	}
	must(c.alice.Redact(c.ctx, c.room, edit, ""))(t)
	c.becomes(link, http.StatusGone)

	uri := must(c.alice.Upload(c.ctx, "one.png", "image/png", picture(t, 3, 3)))(t)
	edit, got = c.next(map[string]any{
		"msgtype": "m.image", "body": "* x.png", "m.new_content": map[string]any{"msgtype": "m.image", "body": "x.png", "url": uri.String()},
		"m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": event},
	})
	if status, _, _ := c.opens(got.Media.URL, "*/*"); status != http.StatusOK {
		t.Fatalf("the link answers %d", status)
	}
	must(c.alice.Redact(c.ctx, c.room, edit, ""))(t)
	c.becomes(got.Media.URL, http.StatusGone)
}

func TestProxy21_PageOfAReply_LeavesOutWhatItQuotes(t *testing.T) {
	c := newCrossing(t)
	first := c.says("question")
	c.arrives("question")
	_, got := c.next(map[string]any{
		"msgtype": "m.text", "body": "> <@bob:x> a secret\n> of others\n\nmine",
		"m.relates_to": map[string]any{"m.in_reply_to": map[string]any{"event_id": first}},
	})
	if _, _, body := c.opens(must(got.TextLink(c.ctx))(t), "*/*"); body != "mine\n" {
		t.Errorf("the page says %q", body)
	}
}

func TestMedia_EditOfAFile_HasItsMarkBeforeTheCaptionAlone(t *testing.T) {
	c := newCrossing(t)
	for caption, want := range map[string]string{"": "", "my cat": "* my cat"} {
		file := map[string]any{"msgtype": "m.image", "body": caption, "filename": "cat.png", "url": "mxc://hs.test/cat"}
		edit := map[string]any{"msgtype": "m.image", "body": "* cat.png", "m.new_content": file, "m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": "$before"}}
		if _, got := c.next(edit); got.Text != want || got.Media == nil || got.Media.Name != "cat.png" {
			t.Errorf("the network got %q, want %q (%+v)", got.Text, want, got.Media)
		}
	}
}

func TestMedia_FactsOfFilmAndSound_ReachTheNetwork(t *testing.T) {
	c := newCrossing(t, func(cfg *bridge.Config) { cfg.Media.Listen, cfg.Media.PublicURL = "", "" })
	_, got := c.next(map[string]any{
		"msgtype": "m.audio", "body": "Voice message", "url": "mxc://x/y", "info": map[string]any{"duration": 42_000, "mimetype": "audio/ogg"},
		"org.matrix.msc3245.voice": map[string]any{},
	})
	if got.Kind != bridge.KindAudio || !got.Media.Voice || got.Media.Duration != 42*time.Second || got.TextLink != nil || got.Media.URL != "" {
		t.Errorf("the network got %+v %+v", got, got.Media)
	}
}

func TestMedia_DurationsThatCannotBe_AreLeftOut(t *testing.T) {
	c := newCrossing(t)
	for said, want := range map[string]time.Duration{
		"-5": 0, "9223372036854": 0, "18446744073709": 0, "9223372036854775807": 0, "1e308": 0, "null": 0, "1500.7": 1500 * time.Millisecond, "35999999999": 35999999999 * time.Millisecond,
	} {
		if _, got := c.next(map[string]any{"msgtype": "m.audio", "body": "a", "url": "mxc://x/y", "info": map[string]any{"duration": json.RawMessage(said)}}); got.Media.Duration != want {
			t.Errorf("%s milliseconds came as %v, want %v", said, got.Media.Duration, want)
		}
	}
}

// The room's lane waits for the network; what was deleted must not wait with it.
func TestProxy07_RedactionWhileTheNetworkIsAway_EndsTheLinkAtOnce(t *testing.T) {
	c := newCrossing(t)
	event, link := c.photo("photo.png")
	c.answers(link, http.StatusOK)
	c.net.FailSends(bridge.ErrOffline)
	c.says("this waits until the network is back")
	c.ok(c.net.Wait(c.ctx, "the first try", func() bool { return c.net.FaultsLeft() == 0 }))
	must(c.alice.Redact(c.ctx, c.room, id.EventID(event), ""))(t)
	deadline := time.Now().Add(10 * time.Second)
	for status, _ := get(t, link); status != http.StatusGone; status, _ = get(t, link) {
		if time.Now().After(deadline) {
			t.Fatalf("the link answers %d", status)
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.net.Sink().Online()
	c.arrives("this waits until the network is back")
}
