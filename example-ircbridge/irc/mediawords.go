package irc

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/format"
)

const (
	maxFileName   = 120 // bytes of a file's name
	leastFileName = 16  // bytes that a name keeps for a caption's sake; for the link's sake it goes altogether
)

// fileWords are what a file is in words: each kind has its own.
type fileWords struct {
	kind  string // before the name; "": the name says enough
	name  string
	facts string // in brackets
	link  string
}

// wordsOf describes a file. Whatever its sender called it, it is one line.
func wordsOf(kind bridge.Kind, m *bridge.Media) fileWords {
	w := fileWords{name: shortName(format.Label(m.Name, len(m.Name)), maxFileName)}
	var facts []string
	add := func(known bool, fact string) {
		if known {
			facts = append(facts, fact)
		}
	}
	size, sides := format.Size(max(m.Size, 0)), fmt.Sprintf("%d×%d", m.Width, m.Height)
	switch {
	case kind == bridge.KindSticker:
		w.kind = "sticker" // its name is what it shows, and nobody wants to know its size
	case m.Voice:
		w.kind, w.name = "voice message", "" // clients call all of them alike
		add(m.Duration > 0, duration(m.Duration))
	case kind == bridge.KindVideo, kind == bridge.KindAudio:
		w.kind = string(kind)
		add(m.Duration > 0, duration(m.Duration))
		add(m.Size > 0, size)
	case kind == bridge.KindFile:
		w.kind = "file"
		add(m.Size > 0, size)
	case kind == bridge.KindGallery:
		add(m.Size > 0, size)
	default:
		if w.name == "" {
			w.name = "picture"
		}
		add(m.Size > 0, size)
	}
	add(m.Width > 0 && m.Height > 0 && (kind == bridge.KindImage || kind == bridge.KindVideo), sides)
	w.facts = strings.Join(facts, ", ")
	// The link was made by the bridge. Whatever it is, it is one word.
	w.link = strings.Join(strings.Fields(format.CleanPlain(m.URL)), "%20")
	return w
}

// duration is how long something takes, as players show it.
func duration(d time.Duration) string {
	s := int64((d + time.Second/2) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

func (w fileWords) String() string {
	text := strings.TrimSpace(w.kind + " " + w.name)
	if w.facts != "" {
		text = strings.TrimSpace(text + " (" + w.facts + ")")
	}
	if w.link == "" {
		return text
	}
	return strings.TrimPrefix(text+": ", ": ") + w.link
}

// within makes it fit by giving up of the name what it must, then all of it, then the facts, and never the link.
func (w fileWords) within(room int) string {
	if over := len(w.String()) - room; over > 0 && len(w.name) > over {
		w.name = shortName(w.name, len(w.name)-over)
	}
	if len(w.String()) > room {
		w.name = ""
	}
	if len(w.String()) > room {
		w.facts = ""
	}
	if len(w.String()) > room && w.link != "" {
		return w.link
	}
	return w.String()
}

// shortName cuts a file's name, and keeps the extension, which says what it is.
func shortName(name string, most int) string {
	if len(name) <= most {
		return name
	}
	ext := path.Ext(name)
	if len(ext) > most/2 || strings.Contains(ext, " ") {
		ext = ""
	}
	return format.Truncate(strings.TrimSuffix(name, ext), most-len(ext)) + ext
}

// fileLines are the lines of a message with a file: the file with its link is one, and so is the caption where both fit.
func fileLines(msg *bridge.Message, caption string, room int) []string {
	w := wordsOf(msg.Kind, msg.Media)
	joined := strings.Join(strings.Fields(caption), " ")
	if strings.TrimSpace(format.Strip(joined)) == "" {
		return []string{w.within(room)}
	}
	const between = " — "
	short := w
	if over := len(w.String()) + len(between) + len(joined) - room; over > 0 && len(w.name)-over >= leastFileName {
		short.name = shortName(w.name, len(w.name)-over)
	}
	if line := short.String() + between + joined; len(line) <= room {
		return []string{line}
	}
	return append([]string{w.within(room)}, format.Split(caption, room)...)
}
