package irc

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
)

// registration is how far a link has come: capabilities, then SASL, then the welcome. A server without CAP goes straight to
// the welcome.
type registration struct {
	offered  map[string]string // capabilities with their values, as CAP LS tells
	asked    int               // REQs without an answer
	ended    bool              // CAP END is sent
	loggedIn bool
	attempts int // of other nicks
	welcomed bool
}

// wantedCaps are the capabilities that we understand. echo-message is wanted only together with labeled-response, which
// tells our own echoes from each other; sasl only when there is an account.
var wantedCaps = []string{
	"account-tag", "batch", "cap-notify", "chghost", "extended-join", "message-tags", "multi-prefix", "server-time",
}

// register begins. Nothing is metered until the welcome: servers do not count, and slow registrations time out.
func (l *link) register() {
	c := &l.session.config
	l.registration = registration{offered: map[string]string{}}
	l.send("CAP", "LS", "302")
	if c.Password != "" {
		l.send("PASS", c.Password)
	}
	l.nick = c.Nick
	l.send("NICK", l.nick)
	l.send("USER", c.Username, "0", "*", c.Realname)
}

func (l *link) handleCap(m *ircmsg.Message) {
	if len(m.Params) < 3 {
		return
	}
	r, list := &l.registration, strings.Fields(m.Params[len(m.Params)-1])
	switch strings.ToUpper(m.Params[1]) {
	case "LS":
		l.offer(list)
		if more := len(m.Params) > 3 && m.Params[2] == "*"; !more {
			l.request(l.wanted())
		}
	case "NEW":
		l.offer(list)
		l.request(l.wanted())
	case "DEL":
		for _, name := range list {
			delete(l.caps, name)
			delete(r.offered, name)
		}
		if l.ready && (slices.Contains(list, "echo-message") || slices.Contains(list, "labeled-response")) {
			l.queue.fenceAll()
		}
	case "ACK":
		for _, name := range list {
			if off, ok := strings.CutPrefix(name, "-"); ok {
				delete(l.caps, off)
			} else {
				l.caps[name] = true
			}
		}
		r.asked--
		l.afterCaps()
	case "NAK":
		r.asked--
		if len(list) > 1 {
			// One of them spoils the rest: ask for each by itself.
			for _, name := range list {
				if name != "echo-message" && name != "labeled-response" {
					l.request([]string{name})
				}
			}
		}
		l.afterCaps()
	}
}

func (l *link) offer(list []string) {
	for _, name := range list {
		name, value, _ := strings.Cut(name, "=")
		l.registration.offered[name] = value
	}
}

// wanted is what we want of what is offered, and do not have.
func (l *link) wanted() []string {
	has := func(name string) bool { _, ok := l.registration.offered[name]; return ok }
	var names []string
	for _, name := range wantedCaps {
		if has(name) {
			names = append(names, name)
		}
	}
	if has("labeled-response") && has("batch") && has("message-tags") {
		names = append(names, "labeled-response")
		if has("echo-message") {
			names = append(names, "echo-message")
		}
	}
	if has(redactionCap) && has("message-tags") {
		names = append(names, redactionCap)
	}
	if has(historyCap) && has("batch") && has("server-time") && has("message-tags") && l.session.config.History > 0 {
		names = append(names, historyCap)
	}
	if has("sasl") && l.session.config.SASL.Mechanism != "" && !l.registration.welcomed {
		names = append(names, "sasl")
	}
	return slices.DeleteFunc(names, func(name string) bool { return l.caps[name] })
}

func (l *link) request(names []string) {
	if len(names) > 0 {
		l.registration.asked++
		l.send("CAP", "REQ", strings.Join(names, " "))
		return
	}
	l.afterCaps()
}

// afterCaps goes on once every request is answered.
func (l *link) afterCaps() {
	r := &l.registration
	if r.asked > 0 || r.ended || r.welcomed {
		return
	}
	if l.session.config.SASL.Mechanism == "" || r.loggedIn {
		r.ended = true
		l.send("CAP", "END")
		return
	}
	mechanisms := r.offered["sasl"]
	switch {
	case !l.caps["sasl"]:
		l.refuse("the server offers no SASL, but an account is configured (network.sasl)")
	case mechanisms != "" && !slices.Contains(strings.Split(mechanisms, ","), "PLAIN"):
		l.refuse("the server does not offer SASL PLAIN, only " + oneLine(mechanisms))
	default:
		l.send("AUTHENTICATE", "PLAIN")
	}
}

func (l *link) refuse(text string) { l.refusal = &refusedError{text: text} }

// handleAuthenticate answers the server's + with the credentials of RFC 4616, in pieces of 400 bytes.
func (l *link) handleAuthenticate(m *ircmsg.Message) {
	if len(m.Params) == 0 || m.Params[0] != "+" {
		return
	}
	c := l.session.config.SASL
	data := base64.StdEncoding.EncodeToString([]byte("\x00" + c.Account + "\x00" + c.Password))
	for len(data) >= 400 {
		l.send("AUTHENTICATE", data[:400])
		data = data[400:]
	}
	if data == "" {
		data = "+"
	}
	l.send("AUTHENTICATE", data)
}

func (l *link) handleLoggedIn(*ircmsg.Message) {
	l.registration.loggedIn = true
	l.afterCaps()
}

func (l *link) handleLoginFailed(m *ircmsg.Message) {
	if !l.registration.loggedIn {
		l.refuse("the login to the account " + l.session.config.SASL.Account + " failed (network.sasl)")
		l.refusal.said = oneLine(m.Params[len(m.Params)-1])
	}
}

// handleNickRefused is 432, 433 and 437 before the welcome: another nick. After it, the nick we have will do.
func (l *link) handleNickRefused(m *ircmsg.Message) {
	if len(m.Params) > 1 && l.support.isChannel(m.Params[1]) {
		l.handleNumeric(m) // 437 is for channels too
		return
	}
	r := &l.registration
	if r.welcomed {
		return
	}
	r.attempts++
	if r.attempts > 20 {
		l.refuse("the server takes no nick like " + l.session.config.Nick)
		return
	}
	n := r.attempts
	if m.Command == "432" && n < 3 {
		n = 3 // too long, or too strange: underscores do not mend that
	}
	l.nick = fallbackNick(l.session.config.Nick, n, l.support.nickLen)
	l.send("NICK", l.nick)
}

// handleWelcome is 001: the nick in it is ours, whatever we asked for.
func (l *link) handleWelcome(m *ircmsg.Message) {
	if l.session.config.SASL.Mechanism != "" && !l.registration.loggedIn {
		l.refuse("the server offers no SASL, but an account is configured (network.sasl)")
		return
	}
	l.registration.welcomed = true
	if len(m.Params) > 0 && m.Params[0] != "" && m.Params[0] != "*" {
		l.nick = m.Params[0]
	}
	l.queue.meter()
}

// handleMOTD is 376 or 422, with which the welcome ends.
func (l *link) handleMOTD(*ircmsg.Message) {
	s := l.session
	if l.ready || !l.registration.welcomed {
		return
	}
	l.ready = true
	s.rekey(l.support.mapping)
	s.link, s.wasLinked = l, true
	s.crew.bears(s, l.fold(l.nick), l.user, l.host)
	s.log().Info().Msg("Connected to " + s.config.host() + " as " + l.nick)
	if l.support.botMode != "" && s.relays() {
		l.send("MODE", l.nick, "+"+l.support.botMode)
	}
	if !l.joinAll() {
		l.online()
	}
	if len(s.channels) == 0 {
		l.send("USERHOST", l.nick)
	}
	if !l.isMe(s.config.Nick) && l.support.monitor {
		l.send("MONITOR", "+", s.config.Nick)
	}
}

// handleUserhost is 302: nick=+user@host, with * after the nick of an operator.
func (l *link) handleUserhost(m *ircmsg.Message) {
	if len(m.Params) < 2 {
		return
	}
	for _, entry := range strings.Fields(m.Params[1]) {
		nick, rest, ok := strings.Cut(entry, "=")
		user, host, at := strings.Cut(strings.TrimLeft(rest, "+-"), "@")
		if ok && at && l.isMe(strings.TrimSuffix(nick, "*")) {
			l.user, l.host = user, host
		}
	}
}

// regain takes the configured nick back when its owner is gone.
func (l *link) regain(gone string) {
	if c := l.session.config.Nick; l.ready && l.fold(gone) == l.fold(c) && !l.isMe(c) {
		l.send("NICK", c)
	}
}

// handleOffline is 731: nicks that we monitor and that are gone.
func (l *link) handleOffline(m *ircmsg.Message) {
	if len(m.Params) < 2 {
		return
	}
	for _, who := range strings.Split(m.Params[1], ",") {
		nick, _, _ := strings.Cut(who, "!")
		l.regain(nick)
	}
}

// handleHostHidden is 396: our new host, or user@host.
func (l *link) handleHostHidden(m *ircmsg.Message) {
	if len(m.Params) < 2 {
		return
	}
	host := m.Params[1]
	if user, h, ok := strings.Cut(host, "@"); ok {
		l.user, host = user, h
	}
	l.host = host
	l.looks()
}

// handleChangedHost is CHGHOST.
func (l *link) handleChangedHost(m *ircmsg.Message) {
	if len(m.Params) > 1 && l.isMe(m.Nick()) {
		l.user, l.host = m.Params[0], m.Params[1]
		l.looks()
	}
}

// looks tells the other sessions how others see this one from now on.
func (l *link) looks() {
	if l.ready {
		l.session.crew.bears(l.session, l.fold(l.nick), l.user, l.host)
	}
}
