package appservice_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// The bridge was away for long, and the homeserver has sent what there was meanwhile: so much that of its beginning nothing is remembered.
func TestCatchUp_MoreHasComeThanIsRemembered_NothingIsTakenAgain(t *testing.T) {
	p := newPast(t, "sqlite:"+filepath.Join(t.TempDir(), "past.db"), store.Options{SeenEvents: 50})
	var sent []id.EventID
	for range 30 {
		sent = append(sent, p.says("sent in time"))
	}
	p.comes(sent...)
	p.hears(sent...)
	for n := range 10 {
		var others []string
		for m := range 10 {
			others = append(others, fmt.Sprintf(`{"type":"m.room.message","room_id":"!other:x","event_id":"$%d_%d","sender":"@a:x","content":{"body":"x","msgtype":"m.text"}}`, n, m))
		}
		p.comesAs(others...)
		for range others {
			<-p.heard
		}
	}
	p.catchUp()
}
