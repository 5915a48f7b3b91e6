package irc

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircmsg"
)

// errUnsafe is a line that cannot be written without meaning something else.
var errUnsafe = errors.New("the line contains what IRC cannot carry")

// encode makes the bytes of one line, CRLF included. Nothing that it returns can be read as two lines, or as other
// parameters than these: a parameter with CR, LF or NUL, or a middle one with a space, is an error and not a repair, because
// whoever made it must have cleaned it.
func encode(tags map[string]string, lineLen int, command string, params ...string) ([]byte, error) {
	for i, p := range params {
		if strings.ContainsAny(p, "\r\n\x00") || !utf8.ValidString(p) {
			return nil, fmt.Errorf("%w: %s, parameter %d", errUnsafe, command, i+1)
		}
	}
	message := ircmsg.MakeMessage(tags, "", command, params...)
	if n := len(params); n > 0 && (command == "PRIVMSG" || command == "NOTICE" || command == "TOPIC" || command == "USER") {
		message.ForceTrailing()
	}
	line, err := message.LineBytesStrict(true, lineLen)
	if err != nil {
		return nil, fmt.Errorf("writing a %s: %w", command, err)
	}
	return line, nil
}

// oneLine makes text fit for the end of a line.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return ' '
		}
		if r == 0 {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// parse reads a line from the server. What a sloppy server puts into it must not cost a message: controls that cannot be
// are made spaces, and tags that cannot be read are left out.
func parse(line string) (ircmsg.Message, error) {
	if strings.ContainsAny(line, "\x00\r") {
		line = strings.NewReplacer("\x00", " ", "\r", " ").Replace(line)
	}
	m, err := ircmsg.ParseLine(line)
	if errors.Is(err, ircmsg.ErrorInvalidTagContent) {
		if _, rest, ok := strings.Cut(line, " "); ok {
			return ircmsg.ParseLine(rest)
		}
	}
	return m, err
}
