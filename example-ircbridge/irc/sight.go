package irc

import (
	"fmt"
	"slices"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
)

// sight is what a session sees in a channel: something to deliver, or that one of ours has come or gone.
type sight struct {
	key    string // what it is known by: its ID, or what it is
	bare   string // what it is
	in     bridge.Incoming
	who    *session
	came   bool
	nick   string // of it, folded
	to     string // what it is from now on, after a change
	parted bool   // it went with a PART: whether it wanted to, it knows itself
	barred bool   // the channel does not want it
	at     time.Time
}

// sightOf names what everybody in the channel sees. What only one was told, as a list of members, has no name.
func sightOf(in *bridge.Incoming) sight {
	sg := sight{in: *in}
	switch id := in.Sender.ID; {
	case in.Text != nil:
		sg.bare = fmt.Sprintf("%s %s\x00%s", in.Text.Kind, id, in.Text.Body)
	case in.Join != nil:
		sg.bare = "join " + id
	case in.Leave != nil:
		sg.bare = fmt.Sprintf("leave %s\x00%s\x00%s", id, in.Leave.By, in.Leave.Reason)
	case in.Rename != nil:
		sg.bare = fmt.Sprintf("rename %s\x00%s", in.Rename.From.ID, id)
	case in.Redact != nil:
		sg.bare = "redact " + in.Redact.ID
	case in.React != nil:
		sg.bare = fmt.Sprintf("react %s\x00%v", id, *in.React)
	case in.Topic != nil && id != "":
		sg.bare = fmt.Sprintf("topic %s\x00%s", id, in.Topic.Text)
	}
	if sg.key = sg.bare; in.ID != "" {
		sg.key = "id " + in.ID
	}
	return sg
}

// is says whether two sessions have seen the same. Where only the server of one gives IDs, it is what it is that counts.
func (sg *sight) is(other *sight) bool {
	return sg.key == other.key || (sg.in.ID == "") != (other.in.ID == "") && sg.bare != "" && sg.bare == other.bare
}

// sightOfOurs names the nick: a link that is lost may sit in the channel for a while, beside the one that came after it.
func sightOfOurs(who *session, nick string, came bool) sight {
	return sight{key: fmt.Sprintf("ours %s %s %v", who.login, nick, came), who: who, nick: nick, came: came}
}

func sightOfOurNick(who *session, from, to string) sight {
	return sight{key: fmt.Sprintf("ours %s %s\x00%s", who.login, from, to), who: who, nick: from, to: to}
}

// note adds to a list what the other side is expected to have, too; what it never has is forgotten.
func (st *seat) note(list []sight, sg sight) []sight {
	sg.at = time.Now()
	n := 0
	for n < len(list) && (st.stale(list[n]) || len(list)-n >= heldMost) {
		n++
	}
	return append(list[n:], sg)
}

// stale: who has shown nothing for so long is gone, or was never shown it.
func (st *seat) stale(sg sight) bool {
	ping := st.s.config.Ping
	return time.Since(sg.at) > ping.Interval+ping.Timeout+time.Minute
}

// strike takes out the first that is the same.
func (st *seat) strike(list *[]sight, sg sight) bool {
	i := slices.IndexFunc(*list, func(has sight) bool { return has.is(&sg) && !st.stale(has) })
	if i < 0 {
		return false
	}
	*list = slices.Delete(*list, i, i+1)
	return true
}
