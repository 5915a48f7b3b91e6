package appservice

import (
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// sinceOurs marks what happened in a room while none of the bridge's users was in it: that is none of its affair, and the homeserver does not send it. past is the newest
// first; known is the event before it that was taken, or nil; whole says that there is none before it.
//
// The user whose eyes these are is in the room. When nobody sees him come he was there all the time.
func (i *Intent) sinceOurs(past []*pastEvent, known *pastEvent, whole bool) []*pastEvent {
	comes := -1 // the oldest coming or going of his
	for n, ev := range past {
		if ev.user() == i.user && !ev.stays() {
			comes = n
		}
	}
	if comes < 0 && !whole {
		return past
	}
	there, somebody := map[id.UserID]bool{}, false
	note := func(ev *pastEvent) {
		user := ev.user()
		switch {
		case !i.as.isOwn(user):
			// What was sent was so because one of ours was there.
			if somebody = somebody || ev.sight != 0 && !ev.dim; i.as.isOwn(ev.Sender) {
				there[ev.Sender] = true
			}
		case ev.Content.Membership == string(event.MembershipJoin):
			there[user] = true
		case ev.Content.Membership != string(event.MembershipInvite) && ev.Content.Membership != string(event.MembershipKnock):
			delete(there, user)
			if user == i.user {
				somebody = false
			}
		}
	}
	if known != nil {
		note(known)
	}
	for n := len(past) - 1; n >= 0; n-- {
		note(past[n])
		past[n].before = !somebody && len(there) == 0 && !i.as.isOwn(past[n].user())
	}
	return past
}

// user is who comes or goes with an event, or "".
func (ev *pastEvent) user() id.UserID {
	if ev.Type != event.StateMember.Type || ev.StateKey == nil {
		return ""
	}
	return id.UserID(*ev.StateKey)
}

// stays says of a member's event that it is only of another name, or the like.
func (ev *pastEvent) stays() bool {
	return ev.Content.Membership == string(event.MembershipJoin) && ev.Unsigned.PrevContent.Membership == string(event.MembershipJoin)
}
