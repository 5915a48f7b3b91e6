package irc

import (
	"context"
	"strings"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
)

var (
	_ bridge.Directory  = (*Network)(nil)
	_ bridge.UserFinder = (*session)(nil)
)

// The fields of a search. The network is the server's name.
const (
	fieldNetwork = "network"
	fieldNick    = "nick"
	fieldChannel = "channel"
)

// Protocol implements [bridge.Directory].
func (n *Network) Protocol() appservice.Protocol {
	config := n.Config().(*Config)
	host := config.host()
	return appservice.Protocol{
		UserFields:     []string{fieldNetwork, fieldNick},
		LocationFields: []string{fieldNetwork, fieldChannel},
		Icon:           config.Icon,
		FieldTypes: map[string]appservice.FieldType{
			fieldNetwork: {Regexp: `[A-Za-z0-9.:-]+`, Placeholder: "irc.example.org"},
			fieldNick:    {Regexp: `[^\s#&,:@!*?$%+~]+`, Placeholder: "nick"},
			fieldChannel: {Regexp: `[#&][^\s,]+`, Placeholder: "#channel"},
		},
		Instances: []appservice.ProtocolInstance{{
			Desc: host, Icon: config.Icon, NetworkID: host, Fields: map[string]string{fieldNetwork: host},
		}},
	}
}

// here says whether a search means this network: it names it, or none.
func (n *Network) here(fields map[string]string) bool {
	name, named := fields[fieldNetwork]
	return !named || strings.EqualFold(name, n.Config().(*Config).host())
}

// UserBy implements [bridge.Directory].
func (n *Network) UserBy(fields map[string]string) (string, bool) {
	nick := fields[fieldNick]
	return nick, nick != "" && n.here(fields)
}

// UserFields implements [bridge.Directory].
func (n *Network) UserFields(user bridge.RemoteUser) map[string]string {
	nick := user.Name
	if nick == "" {
		nick = user.ID
	}
	return map[string]string{fieldNetwork: n.Config().(*Config).host(), fieldNick: nick}
}

// ChannelBy implements [bridge.Directory].
func (n *Network) ChannelBy(fields map[string]string) (string, bool) {
	channel, err := n.Channel(fields[fieldChannel])
	return channel, err == nil && n.here(fields)
}

// ChannelFields implements [bridge.Directory].
func (n *Network) ChannelFields(channel string) map[string]string {
	return map[string]string{fieldNetwork: n.Config().(*Config).host(), fieldChannel: channel}
}

// FindUser implements [bridge.UserFinder]. Whoever is in a channel with the bot is known; nobody else is, and the network
// is not asked: anybody on Matrix could make the bot write lines otherwise.
func (s *session) FindUser(_ context.Context, name string) (bridge.RemoteUser, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return bridge.RemoteUser{}, false, s.offline("who is there is not known")
	}
	folded := s.mapping.Fold(name)
	for _, ch := range s.channels {
		if !ch.joined || !ch.wanted {
			continue
		}
		if nick, ok := ch.members[folded]; ok {
			return s.link.remote(nick), true, nil
		}
	}
	return bridge.RemoteUser{}, false, nil
}
