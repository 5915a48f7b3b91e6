package bridge

import (
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// ghostID returns the Matrix user that stands for a remote user: the configured prefix and the remote ID, escaped as the
// specification's appendix "Mapping from other character sets" has it. The prefix sits inside the registration's exclusive
// namespace, so no person can have such a name.
func (b *Bridge) ghostID(user RemoteUser) id.UserID {
	return id.NewUserID(b.cfg.Appservice.Ghosts+appservice.EscapeLocalpart(user.ID), b.cfg.Homeserver.Domain)
}

func (u RemoteUser) displayName() string {
	if u.Name != "" {
		return u.Name
	}
	return u.ID
}
