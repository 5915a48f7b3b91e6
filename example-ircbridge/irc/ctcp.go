package irc

import (
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// ctcp takes a client-to-client message apart: \x01COMMAND argument\x01, the last \x01 being optional in practice.
func ctcp(text string) (command, argument string, ok bool) {
	text, ok = strings.CutPrefix(text, "\x01")
	if !ok {
		return "", "", false
	}
	command, argument, _ = strings.Cut(strings.TrimSuffix(text, "\x01"), " ")
	return strings.ToUpper(command), argument, true
}

// answers bounds what strangers can make the bot say in private: so many in a minute, and the explanation once an hour to
// each.
type answers struct {
	since time.Time
	count int
	told  map[string]time.Time
}

const (
	answersPerMinute = 5
	toldEvery        = time.Hour
	maxTold          = 200
)

func (a *answers) allowed(now time.Time) bool {
	if now.Sub(a.since) > time.Minute {
		a.since, a.count = now, 0
	}
	a.count++
	return a.count <= answersPerMinute
}

func (a *answers) tell(folded string, now time.Time) bool {
	if now.Sub(a.told[folded]) < toldEvery {
		return false
	}
	if a.told == nil || len(a.told) >= maxTold {
		a.told = map[string]time.Time{}
	}
	a.told[folded] = now
	return true
}

// answer replies to what was sent to the bot alone. It says nothing of anybody on Matrix.
func (l *link) answer(_ *ircmsg.Message, nick, text string) {
	now, a := time.Now(), &l.session.answered
	command, argument, isCTCP := ctcp(text)
	reply := ""
	switch {
	case isCTCP && command == "VERSION":
		reply = "\x01VERSION Trestle IRC bridge " + oneLine(l.session.version) + "\x01"
	case isCTCP && command == "PING" && len(argument) < 100:
		reply = "\x01PING " + oneLine(strings.ReplaceAll(argument, "\x01", "")) + "\x01"
	case isCTCP:
		return
	case a.tell(l.fold(nick), now):
		reply = "I am a bridge and relay what is said in channels. Nobody reads what is sent to me alone."
	default:
		return
	}
	if a.allowed(now) {
		l.send("NOTICE", nick, reply)
	}
}
