package e2e

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// phoneWidth is that of the narrowest phones that are sold.
const phoneWidth = 360

// scene draws a picture that compresses well.
func scene(t *testing.T, n uint8) []byte {
	t.Helper()
	picture := image.NewPaletted(image.Rect(0, 0, 1200, 900), color.Palette{
		color.RGBA{120, 170 + 20*n, 220, 255}, color.RGBA{60 + 40*n, 120, 70, 255}, color.RGBA{250, 220, 90 + 50*n, 255},
	})
	for y := range 900 {
		for x := range 1200 {
			dx, dy := x-300-int(n)*250, y-250
			switch {
			case dx*dx+dy*dy < 120*120:
				picture.SetColorIndex(x, y, 2)
			case y > 600+int(n)*40+(x%400-200)*(x%400-200)/400:
				picture.SetColorIndex(x, y, 1)
			}
		}
	}
	var data bytes.Buffer
	if err := png.Encode(&data, picture); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// A long text and a gallery go from Synapse to IRC, and whoever reads there opens their links on a phone. Screenshots are kept in the folder that
// TRESTLE_TEST_SCREENSHOTS names.
func TestPages_OpenedFromIRCOnAPhone_FitAndAskNobodyElse(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{})
	phone := StartPhone(t, phoneWidth, 640)

	const unbroken = "https://example.org/a/very/long/address/without/a/single/break/that/is/wider/than/any/phone/there/is?and=it&goes=on&and=on"
	text := strings.Join([]string{
		"Notes from Tuesday's meeting", "", "1. The bridge at the old mill is closed until March: the deck is being replaced.",
		"2. Whoever has a key to the shed brings it to Ada.", "3. The map: " + unbroken, "",
		"<script>alert('not a script')</script> & <b>not bold</b>", "", "שלום לכולם, מחר בשמונה.", "", "    tar -xzf notes.tar.gz && less notes/README",
	}, "\n")
	c.Alice.Say(c.Room, text)
	line := c.ToIRC("more lines", "/m/")
	link := anyLink.FindString(line.Params[1])
	resp, err := http.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != text+"\n" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("a program that does not ask for HTML gets %q", body)
	}
	phone.shows(t, link, 1, "page-text.png")

	var items []any
	for n := range uint8(3) {
		data := scene(t, n)
		name := []string{"The mill.png", "The river on the morning after the rain, seen from the new bridge.png", "Evening.png"}[n]
		items = append(items, map[string]any{
			"itemtype": "m.image", "body": name, "url": c.Alice.Upload(data, "image/png", name).String(),
			"info": map[string]any{"mimetype": "image/png", "size": len(data), "w": 1200, "h": 900},
		})
	}
	c.Alice.Send(c.Room, map[string]any{"msgtype": "m.gallery", "body": "three of <last> week", "itemtypes": items})
	line = c.ToIRC("3 pictures", "/m/", "three of <last> week")
	visit := phone.shows(t, anyLink.FindString(line.Params[1]), 4, "page-gallery.png")
	for _, asked := range visit.Requests[1:] {
		if !strings.Contains(asked, "/m/t320/") && !strings.Contains(asked, "/m/t800/") {
			t.Errorf("the page shows no thumbnail but %s", asked)
		}
	}
}

// shows opens a page, which must ask for as many things as said, all of the proxy.
func (c *Chromium) shows(t *testing.T, link string, requests int, screenshot string) Visit {
	t.Helper()
	visit := c.Open(link)
	if visit.Width > phoneWidth {
		t.Errorf("the page is %d pixels wide, and the phone %d", visit.Width, phoneWidth)
	}
	for _, complaint := range visit.Complaints {
		t.Errorf("the browser complains: %s", complaint)
	}
	host, _, _ := strings.Cut(link, "/m/")
	for _, asked := range visit.Requests {
		if !strings.HasPrefix(asked, host+"/m/") {
			t.Errorf("the page asks for %s", asked)
		}
	}
	if len(visit.Requests) != requests {
		t.Errorf("the page asks for %d things, want %d: %q", len(visit.Requests), requests, visit.Requests)
	}
	if folder := os.Getenv("TRESTLE_TEST_SCREENSHOTS"); folder != "" {
		if err := os.WriteFile(filepath.Join(folder, screenshot), visit.Screenshot, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return visit
}
