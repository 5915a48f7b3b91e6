package irc

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/casemap"
)

// loginData is what is kept of a Matrix user's own login: nothing secret.
type loginData struct {
	Nick string `json:"nick"`
}

// MakeLogin implements [bridge.LoginMaker]. The one word is the nick; without it, what can be made of the user's name.
func (n *Network) MakeLogin(user id.UserID, words []string, there []*bridge.Login) (json.RawMessage, error) {
	most := n.Config().(*Config).Logins
	switch {
	case most == 0:
		return nil, errors.New("the bridge's configuration lets nobody have a connection of their own (network.logins)")
	case len(there) >= most:
		return nil, fmt.Errorf("%d people have a connection of their own already, and that is as many as the configuration lets (network.logins)", len(there))
	case len(words) > 1:
		return nil, errors.New("the nick must be one word")
	}
	nick := strings.Map(func(r rune) rune {
		if r < 0x80 && validNick("a"+string(r)) {
			return r
		}
		return -1
	}, user.Localpart())
	if len(words) == 1 {
		nick = words[0]
	}
	if !validNick(nick) || len(nick) > 30 {
		return nil, fmt.Errorf("%q is no nick: give one of letters, digits and []\\^_{|}-, which does not begin with a digit or \"-\"", nick)
	}
	for _, other := range there {
		var data loginData
		if json.Unmarshal(other.Data, &data) == nil && casemap.RFC1459.Fold(data.Nick) == casemap.RFC1459.Fold(nick) {
			return nil, fmt.Errorf("somebody else here has the nick %s", nick)
		}
	}
	if casemap.RFC1459.Fold(nick) == casemap.RFC1459.Fold(n.Config().(*Config).Nick) {
		return nil, fmt.Errorf("%s is the bridge itself", nick)
	}
	return json.Marshal(loginData{Nick: nick})
}

// openLogin makes the session of a Matrix user: of the relay's settings it has the server and the manners, and not the account.
func (n *Network) openLogin(login *bridge.Login, sink bridge.Sink) (*session, error) {
	n.mu.Lock()
	c := n.crew
	n.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("opening login %q: the relay's is opened first", login.ID)
	}
	var data loginData
	if err := json.Unmarshal(login.Data, &data); err != nil || !validNick(data.Nick) {
		return nil, fmt.Errorf("opening login %q: what is stored of it names no nick", login.ID)
	}
	config := *n.Config().(*Config)
	config.Nick, config.Username, config.SASL = data.Nick, ident(login.User), SASL{}
	config.Realname = string(login.User) + ", by " + config.Realname
	c.mu.Lock()
	c.idents[config.Username] = true
	c.mu.Unlock()
	if config.Logins == 0 { // after that: what they have said is known as ours all the same
		return nil, fmt.Errorf("opening login %q: the configuration lets nobody have a connection of their own (network.logins)", login.ID)
	}
	return n.open(config, login, sink, c), nil
}

// ident is a user name that stays the same for as long as the Matrix user does, so that a network can ban that one alone. Nine bytes are what every server
// takes.
func ident(user id.UserID) string {
	sum := sha256.Sum256([]byte(user))
	return "mx" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:7]
}
