package bridge_test

import (
	"context"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// Of users who are not the bridge's a homeserver says what it says of users that are gone.
func TestUninstall_UserOfAnotherHomeserverOrName_IsNamedAndKept(t *testing.T) {
	for user, why := range map[id.UserID]string{"@test_ann:other.test": "not of this homeserver", "@before_ann:hs.test": "namespaces"} {
		t.Run(string(user), func(t *testing.T) {
			r := newRemoval(t, 1, nil)
			r.b.Stop()
			s := storetest.Open(t, r.b.Config.Database, store.Options{})
			r.ok(s.Commit(context.Background(), s.Epoch(), func(tx *store.Tx) error {
				return tx.PutGhost(&store.Ghost{UserID: string(user), Registered: true, DeviceID: "ELSEWHERE", DeviceMade: true})
			}))
			r.ok(s.Close())
			if status, out := r.uninstall("-yes"); status == 0 || !strings.Contains(out, string(user)) || !strings.Contains(out, why) {
				t.Errorf("%d: %s", status, out)
			}
			s = storetest.Open(t, r.b.Config.Database, store.Options{})
			if g, err := s.Ghost(context.Background(), string(user)); err != nil || g.DeviceID != "ELSEWHERE" {
				t.Errorf("%+v %v", g, err)
			}
		})
	}
}
