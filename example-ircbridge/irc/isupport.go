package irc

import (
	"strconv"
	"strings"

	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// isupport is what the server says about itself in numeric 005, with the defaults of RFC 1459 where it does not.
type isupport struct {
	mapping  casemap.Mapping
	prefixes string // of nicks in NAMES: "@+"
	status   string // prefixes of channel names in STATUSMSG
	types    string // first characters of channels
	nickLen  int    // 0: unknown
	topicLen int    // 0: no limit but the line's
	lineLen  int
	history  int // messages of one answer of CHATHISTORY; 0: unknown, or no limit
	monitor  bool
	botMode  string
	deny     []string // client tags that are refused (CLIENTTAGDENY)
}

func newISupport() isupport {
	return isupport{prefixes: "@+", types: "#&", lineLen: 512}
}

// take reads the tokens of one 005.
func (i *isupport) take(tokens []string) {
	for _, token := range tokens {
		name, value, _ := strings.Cut(token, "=")
		if off, ok := strings.CutPrefix(name, "-"); ok {
			name, value = off, ""
		}
		number, _ := strconv.Atoi(value)
		switch name {
		case "CASEMAPPING":
			i.mapping = casemap.Of(value)
		case "PREFIX":
			if _, prefixes, ok := strings.Cut(value, ")"); ok {
				i.prefixes = prefixes
			} else {
				i.prefixes = ""
			}
		case "STATUSMSG":
			i.status = value
		case "CHANTYPES":
			i.types = value
		case "NICKLEN":
			i.nickLen = number
		case "TOPICLEN":
			i.topicLen = number
		case "LINELEN":
			// No shorter than what every server must take, no longer than what makes sense.
			if number >= 512 && number <= 65536 {
				i.lineLen = number
			}
		case "CHATHISTORY":
			i.history = max(number, 0)
		case "MONITOR":
			i.monitor = !strings.HasPrefix(token, "-")
		case "BOT":
			if len(value) == 1 {
				i.botMode = value
			}
		case "CLIENTTAGDENY":
			i.deny = strings.Split(value, ",")
		}
	}
}

// allows reports whether the server relays a client tag, given without its +.
func (i *isupport) allows(tag string) bool {
	allowed := true
	for _, entry := range i.deny {
		switch entry {
		case "*", tag:
			allowed = false
		case "-" + tag:
			return true
		}
	}
	return allowed
}

func (i *isupport) isChannel(name string) bool {
	return name != "" && strings.IndexByte(i.types, name[0]) >= 0
}
