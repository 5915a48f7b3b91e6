package irc

import (
	"errors"
	"regexp"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

func TestDirectory_ASearch_IsReadAndWritten(t *testing.T) {
	n := NewNetwork("1")
	n.config = testConfig("irc.example.net:6697")
	n.config.Icon = "mxc://example.net/icon"
	for _, c := range []struct {
		fields        map[string]string
		user, channel string
	}{
		{map[string]string{"nick": "Bob"}, "Bob", ""},
		{map[string]string{"nick": "Bob", "network": "IRC.example.net"}, "Bob", ""},
		{map[string]string{"nick": "Bob", "network": "elsewhere"}, "", ""},
		{map[string]string{"channel": "#Trestle"}, "", "#trestle"},
		{map[string]string{"channel": "#Trestle", "network": "elsewhere"}, "", ""},
		{map[string]string{"channel": "trestle"}, "", ""},
		{map[string]string{"network": "irc.example.net"}, "", ""},
		{nil, "", ""},
	} {
		user, isUser := n.UserBy(c.fields)
		channel, isChannel := n.ChannelBy(c.fields)
		if isUser != (c.user != "") || isUser && user != c.user || isChannel != (c.channel != "") || isChannel && channel != c.channel {
			t.Errorf("%v: user %q %v, channel %q %v", c.fields, user, isUser, channel, isChannel)
		}
	}
	p := n.Protocol()
	if i := p.Instances[0]; i.NetworkID != "irc.example.net" || i.Desc == "" || p.Icon != "mxc://example.net/icon" || i.Fields["network"] != "irc.example.net" {
		t.Errorf("%+v", p)
	}
	for field, values := range map[string]map[string]bool{
		"nick": {"bob": true, "[x]^_|": true, "a b": false, "#x": false}, "channel": {"#c": true, "&c": true, "c": false, "#a,b": false, "#a b": false},
		"network": {"irc.example.net": true, "irc example": false},
	} {
		re := regexp.MustCompile("^(?:" + p.FieldTypes[field].Regexp + ")$")
		for value, want := range values {
			if re.MatchString(value) != want {
				t.Errorf("%s %q matches: %v", field, value, !want)
			}
		}
	}
	for _, fields := range [][]string{p.UserFields, p.LocationFields} {
		for _, field := range fields {
			if p.FieldTypes[field].Placeholder == "" {
				t.Errorf("%s has no placeholder", field)
			}
		}
	}
	back, ok := n.UserBy(n.UserFields(bridge.RemoteUser{ID: "bob", Name: "Bob"}))
	if !ok || back != "Bob" {
		t.Error(back, ok)
	}
	if back, ok := n.ChannelBy(n.ChannelFields("#c")); !ok || back != "#c" {
		t.Error(back, ok)
	}
}

func TestFindUser_WhoeverIsInAChannelWithTheBot_IsKnown(t *testing.T) {
	f := joined(t, ircd.Options{})
	finder := f.session.(bridge.UserFinder)
	f.sink.until(t, "#c members witness")
	for _, name := range []string{"witness", "WITNESS", "Witness"} {
		if user, ok, err := finder.FindUser(f.ctx(), name); err != nil || !ok || user.ID != "witness" || user.Name != "witness" {
			t.Errorf("%s: %+v %v %v", name, user, ok, err)
		}
	}
	for _, name := range []string{"nobody", "bridge", "#c", ""} {
		if user, ok, err := finder.FindUser(f.ctx(), name); ok || err != nil {
			t.Errorf("%s: %+v %v", name, user, err)
		}
	}
	f.witness.send("PART #c")
	f.sink.until(t, "#c leave witness")
	if _, ok, err := finder.FindUser(f.ctx(), "witness"); ok || err != nil {
		t.Error("somebody who has left is known", err)
	}
}

func TestFindUser_WithoutALink_NobodySaysThatThereIsNobody(t *testing.T) {
	f := joined(t, ircd.Options{})
	if err := f.session.Close(f.ctx()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.session.(bridge.UserFinder).FindUser(f.ctx(), "witness"); !errors.Is(err, bridge.ErrOffline) {
		t.Error(err)
	}
}
