package irc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

const testLink = "https://bridge.example/m/AQAAAAAAAAAqT1xQZb0M3aXwq5n1Yk8d2A/x"

func TestWords_EachKindInItsOwn(t *testing.T) {
	for _, test := range []struct {
		kind bridge.Kind
		m    bridge.Media
		want string
	}{
		{bridge.KindImage, bridge.Media{Name: "photo.jpg", Size: 1_234_567, Width: 1600, Height: 1200}, "photo.jpg (1.2 MB, 1600×1200): "},
		{bridge.KindImage, bridge.Media{Name: "a cat on a mat"}, "a cat on a mat: "},
		{bridge.KindImage, bridge.Media{Size: 10}, "picture (10 B): "},
		{bridge.KindSticker, bridge.Media{Name: "happy cat", Size: 9000, Width: 256, Height: 256}, "sticker happy cat: "},
		{bridge.KindSticker, bridge.Media{}, "sticker: "},
		{bridge.KindAudio, bridge.Media{Name: "Voice message.ogg", Voice: true, Duration: 42 * time.Second, Size: 9000}, "voice message (0:42): "},
		{bridge.KindAudio, bridge.Media{Voice: true}, "voice message: "},
		{bridge.KindAudio, bridge.Media{Name: "song.mp3", Duration: 3*time.Minute + 5*time.Second, Size: 4_100_000}, "audio song.mp3 (3:05, 4.1 MB): "},
		{bridge.KindVideo, bridge.Media{Name: "clip.mp4", Duration: time.Hour + 61*time.Second, Size: 12_300_000, Width: 1280, Height: 720}, "video clip.mp4 (1:01:01, 12.3 MB, 1280×720): "},
		{bridge.KindFile, bridge.Media{Name: "report.pdf", Size: 300_000}, "file report.pdf (300 kB): "},
		{bridge.KindFile, bridge.Media{Size: -1, Width: -1}, "file: "},
		{bridge.KindGallery, bridge.Media{Name: "4 pictures", Files: 4, Size: 5_200_000}, "4 pictures (5.2 MB): "},
		{bridge.KindImage, bridge.Media{Name: "a\r\nQUIT :\x02\x0304,05b\u202egpj.exe\x00\x01"}, "a QUIT :04,05bgpj.exe: "},
	} {
		m := test.m
		m.URL = testLink
		if got := wordsOf(test.kind, &m).String(); got != test.want+testLink {
			t.Errorf("got  %q\nwant %q", got, test.want+testLink)
		}
		m.URL = ""
		if got := wordsOf(test.kind, &m).String(); got != strings.TrimSuffix(test.want, ": ") {
			t.Errorf("without a link: got %q", got)
		}
	}
}

func TestWords_LineThatIsTooLong_LosesItsNameAndNeverTheLink(t *testing.T) {
	m := &bridge.Media{Name: strings.Repeat("Grüße 👨‍👩‍👧‍👦 ", 8) + "photo.jpeg", Size: 1_234_567, Width: 1600, Height: 1200, URL: testLink}
	for room := 300; room >= 0; room-- {
		line := wordsOf(bridge.KindImage, m).within(room)
		if !strings.HasSuffix(line, testLink) || !utf8.ValidString(line) {
			t.Fatalf("room for %d bytes: %q", room, line)
		}
		if room >= len(testLink) && len(line) > room {
			t.Fatalf("room for %d bytes: %d in %q", room, len(line), line)
		}
		if room > 140 && !strings.Contains(line, "….jpeg (1.2 MB, 1600×1200): ") && len(line) < room {
			t.Errorf("room for %d bytes: %q", room, line)
		}
	}
}

func TestFileLines_CaptionIsKept_InTheSameLineWhereItFits(t *testing.T) {
	msg := &bridge.Message{Kind: bridge.KindImage, Media: &bridge.Media{Name: "a very long name of a photo indeed.jpg", URL: testLink}}
	if got := fileLines(msg, "my\ncat", 400); len(got) != 1 || !strings.HasSuffix(got[0], testLink+" — my cat") {
		t.Errorf("%q", got)
	}
	if got := fileLines(msg, "my cat", 98); len(got) != 1 || len(got[0]) > 98 || !strings.Contains(got[0], ".jpg: "+testLink+" — my cat") {
		t.Errorf("%q", got)
	}
	caption := strings.Repeat("a cat ", 60)
	got := fileLines(msg, caption, 200)
	if len(got) != 3 || !strings.HasSuffix(got[0], testLink) || strings.TrimSpace(strings.Join(got[1:], " ")) != strings.TrimSpace(caption) {
		t.Errorf("%q", got)
	}
}

func FuzzWords_WhateverItIsCalled_OneLineThatEndsWithTheLink(f *testing.F) {
	f.Add("photo.jpg", 100)
	f.Add("\r\nQUIT\x00\x03,\x01", 90)
	f.Add(strings.Repeat("é.", 200)+"x", 70)
	f.Fuzz(func(t *testing.T, name string, room int) {
		for _, kind := range []bridge.Kind{bridge.KindImage, bridge.KindSticker, bridge.KindVideo, bridge.KindFile, bridge.KindGallery} {
			line := wordsOf(kind, &bridge.Media{Name: name, Size: 5, Duration: 1e9, URL: testLink}).within(room)
			if !strings.HasSuffix(line, testLink) || room >= len(testLink) && len(line) > room || line != format.CleanPlain(line) || strings.Contains(line, "\n") {
				t.Errorf("room for %d: %q", room, line)
			}
		}
	})
}

// lengthy is a message with a page, and counts how often the page was asked for.
func lengthy(text string) (msg *bridge.Message, asked *int) {
	asked = new(int)
	msg = message(text)
	msg.TextLink = func(context.Context) (string, error) { *asked++; return testLink, nil }
	return msg, asked
}

func TestSend_TextBeyondTheLimit_IsItsFirstLinesAndAPage(t *testing.T) {
	f := joined(t, allCaps)
	msg, asked := lengthy("a\nb\nc\nd\ne\nf\ng")
	f.mustSend(msg)
	for _, want := range []string{"<Alice> a", "<Alice> b", "<Alice> … (5 more lines): " + testLink} {
		if got := f.witness.until(" #c :"); !strings.HasSuffix(got, "#c :"+want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if *asked != 1 {
		t.Errorf("the page was asked for %d times", *asked)
	}
	msg, _ = lengthy("* a\nb\nc\nd\ne\nf\ng") // an edit, in answer to somebody
	msg.ReplyTo = &bridge.Reply{Name: "bob"}
	f.mustSend(msg)
	for _, want := range []string{"<Alice> bob: * a", "<Alice> b", "<Alice> … (5 more lines): " + testLink} {
		if got := f.witness.until(" #c :"); !strings.HasSuffix(got, "#c :"+want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	msg, asked = lengthy("a\nb\nc\nd\ne")
	f.mustSend(msg)
	f.witness.until("<Alice> e")
	if *asked != 0 {
		t.Error("a page was made of what fits")
	}
	msg, _ = lengthy(strings.Repeat("lorem ipsum ", 250)) // one line, too long by itself
	msg.Kind = bridge.KindEmote
	f.mustSend(msg)
	if got := f.witness.until("more line"); !strings.HasSuffix(got, testLink) {
		t.Errorf("got %q", got)
	}
	f.sink.mu.Lock()
	defer f.sink.mu.Unlock()
	for _, said := range f.sink.said {
		if strings.Contains(said, "too long for IRC") {
			t.Errorf("somebody was told that lines are missing: %s", said)
		}
	}
}

func TestSend_TextBeyondTheLimit_WithoutPages_IsCut(t *testing.T) {
	f := joined(t, allCaps, func(c *Config) { c.LongText = LongTextCut })
	msg, asked := lengthy("a\nb\nc\nd\ne\nf\ng")
	f.mustSend(msg)
	f.witness.until("<Alice> … (2 more lines not shown)")
	if *asked != 0 {
		t.Error("a page was made")
	}
}

func TestSend_PageThatCannotBeMade_KeepsTheMessageBack(t *testing.T) {
	f := joined(t, allCaps)
	msg, _ := lengthy("a\nb\nc\nd\ne\nf\ng")
	full := errors.New("the disk is full")
	msg.TextLink = func(context.Context) (string, error) { return "", full }
	if _, err := f.session.Send(f.ctx(), msg); !errors.Is(err, full) || bridge.IsPermanent(err) || bridge.IsInDoubt(err) {
		t.Errorf("got %v", err)
	}
	msg.TextLink = func(context.Context) (string, error) { return testLink, nil }
	f.mustSend(msg)
	f.witness.until(testLink)
}
