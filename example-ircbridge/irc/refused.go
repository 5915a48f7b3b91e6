package irc

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/ergochat/irc-go/ircmsg"
)

// refusedError says that the server does not want us, and whether trying again is an offence. The server's own words are for
// the log: they may tell our address.
type refusedError struct {
	text    string
	said    string
	forGood bool
}

func (e *refusedError) Error() string { return e.text }

// handleError reads the ERROR with which a server closes a link. Its text is for people, but one part of it is nearly a
// protocol: bans are lines, named by a letter.
func (l *link) handleError(m *ircmsg.Message) {
	text := oneLine(strings.Join(m.Params, " "))
	l.lastWords = text
	if isBan(text) {
		l.refusal = &refusedError{text: "the server " + l.session.config.host() + " has banned the bridge", said: text, forGood: true}
		return
	}
	lower := strings.ToLower(text)
	for _, sign := range [...]string{"throttl", "too many", "too fast", "session limit", "bad password"} {
		if strings.Contains(lower, sign) && l.refusal == nil {
			l.refusal = &refusedError{text: "the server " + l.session.config.host() + " does not let the bridge in now", said: text}
		}
	}
}

func isBan(text string) bool {
	lower := strings.ToLower(text)
	for _, kind := range [...]string{"k", "g", "z", "d", "x", "q"} {
		for _, word := range [...]string{kind + "-line", kind + "-lined", kind + ":line", kind + ":lined", kind + "line", kind + "lined"} {
			if containsWord(lower, word) {
				return true
			}
		}
	}
	for _, word := range [...]string{"banned", "akill", "akilled", "autokill", "autokilled"} {
		if containsWord(lower, word) {
			return true
		}
	}
	return false
}

// containsWord finds a word between characters that are no letters.
func containsWord(text, word string) bool {
	letter := func(i int) bool { return i >= 0 && i < len(text) && 'a' <= text[i] && text[i] <= 'z' }
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return false
		}
		i += from
		if !letter(i-1) && !letter(i+len(word)) {
			return true
		}
		from = i + 1
	}
}

// handleBanned is 465: the server bans us, and closes the link.
func (l *link) handleBanned(m *ircmsg.Message) {
	l.refusal = &refusedError{
		text: "the server " + l.session.config.host() + " has banned the bridge", said: oneLine(m.Params[len(m.Params)-1]),
		forGood: true,
	}
}

// handleBadPassword is 464.
func (l *link) handleBadPassword(*ircmsg.Message) {
	l.refusal = &refusedError{text: "the server " + l.session.config.host() + " refuses the password (network.password)"}
}

// reason is why there is no connection, for the rooms: one text for each kind of failure, without anything that differs from
// one attempt to the next.
func reason(err error) string {
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var slow net.Error
	switch {
	case errors.As(err, &name):
		return " (its name is not found)"
	case errors.As(err, &certificate):
		return " (its certificate is not accepted: network.tls)"
	case errors.As(err, &record):
		return " (it does not speak TLS there: network.address, network.tls)"
	case errors.Is(err, errNoHandshake):
		return " (it takes the connection and does not answer to TLS: network.address, network.tls)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return " (nothing listens there: network.address)"
	case errors.Is(err, errSilent), errors.As(err, &slow) && slow.Timeout():
		return " (it does not answer)"
	}
	return ""
}
