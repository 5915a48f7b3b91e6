package appservice

import (
	"context"
	"net/http"
	"strings"

	"maunium.net/go/mautrix/id"
)

// class is what homeservers count together when they limit rates.
type class string

const (
	classMessages class = "messages" // what is sent, and rooms that are made (Synapse: rc_message)
	classJoins    class = "joins"    // rc_joins
	classInvites  class = "invites"  // rc_invites
	classLogins   class = "logins"   // registrations and new devices (rc_registration, rc_login): counted by address, so for all
	classOther    class = "other"
)

var classes = []class{classMessages, classJoins, classInvites, classLogins, classOther}

// act is what a request wants, as far as limits and refusals are concerned.
type act struct {
	user  id.UserID // in whose name
	name  string    // such as "PUT send" and "POST join"
	class class
	room  string // of a join: its ID or an alias, escaped
}

// actOf reads a request of the client-server API. Paths of other kinds are of class other.
func actOf(req *http.Request) act {
	a := act{user: id.UserID(req.URL.Query().Get("user_id")), class: classOther}
	path := req.URL.EscapedPath()
	_, path, found := strings.Cut(path, "/_matrix/client/")
	if !found {
		if strings.Contains(req.URL.Path, "/media/") {
			path = "/media"
		}
	}
	_, path, _ = strings.Cut(path, "/") // the version
	what, rest, _ := strings.Cut(path, "/")
	room, rest, _ := strings.Cut(rest, "/")
	if what == "rooms" {
		what, _, _ = strings.Cut(rest, "/")
	}
	a.name = req.Method + " " + what
	switch a.name {
	case "PUT send", "PUT state", "PUT redact", "POST createRoom", "POST leave", "POST kick", "POST ban", "POST unban", "PUT profile":
		a.class = classMessages
	case "POST join", "POST knock":
		a.class, a.room = classJoins, room
	case "POST invite":
		a.class = classInvites
	case "POST register", "POST login", "PUT devices":
		a.class = classLogins
	}
	return a
}

// sendsEvent says whether the act puts an event into a room, for which the caller has a queue and a policy.
func (a act) sendsEvent() bool {
	return a.name == "PUT send" || a.name == "PUT state" || a.name == "PUT redact"
}

type looking struct{}

// givesReason says whether the act may say why somebody goes, in an event of another kind.
func (a act) givesReason() bool {
	return a.name == "POST leave" || a.name == "POST kick" || a.name == "POST ban"
}

// Looking has look called before each request under ctx that puts words into a room: also when the event is sent once more, since the user had to come in
// again or its device was gone, and after the wait for a turn. With an error of look nothing leaves, and the request fails with it.
func Looking(ctx context.Context, look func(ctx context.Context) error) context.Context {
	return context.WithValue(ctx, looking{}, look)
}

// mayLeave asks who is to look.
func (a act) mayLeave(ctx context.Context) error {
	look, ok := ctx.Value(looking{}).(func(ctx context.Context) error)
	if !ok || !a.sendsEvent() && !a.givesReason() {
		return nil
	}
	return look(ctx)
}
