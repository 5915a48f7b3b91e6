//go:build goolm

package bridge_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
)

func TestEncryption_ModesChangedOnARunningStore_EveryMessageArrives(t *testing.T) {
	s := newSealed(t, "bot")
	for _, mode := range []string{"ghosts", "bot", "off", "ghosts"} {
		s.b.Stop()
		s.b.Config.Encryption.Mode = mode
		s.b.Start()
		if mode == "off" {
			s.networkSays("lost")
			must(s.b.DeadLetters(s.ctx, 1))(t)
			s.keys.Say(s.room, "unread")
			s.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
			continue
		}
		s.keys.Say(s.room, "to the network in "+mode)
		s.arrives("to the network in " + mode)
		s.networkSays("from the network in " + mode)
		s.reads(s.bob(), "from the network in "+mode)
	}
}

func TestEncryption_RoomsOwnMode_HasTheLastWord(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.b.Stop()
	s.b.Config.Bridge.Plumb = []bridge.Plumb{{Room: string(s.room), Channel: lobby, Encryption: "off"}}
	s.b.Start()
	s.networkSays("not here")
	must(s.b.DeadLetters(s.ctx, 1))(t)
	s.keys.Say(s.room, "unread")
	s.seesNotice("This room is encrypted, and I cannot read encrypted messages.")
}

// The homeserver takes the sentence that the bridge cannot read once it can.
func TestEncryption_ModeChangedWhileTheSentenceWaits_ItIsNotSaid(t *testing.T) {
	s := newSealed(t, "bot")
	s.b.Stop()
	s.b.Config.Encryption.Mode = "off"
	tried := make(chan struct{}, 100)
	remove := s.hs.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/send/m.room.message/") {
			return false
		}
		tried <- struct{}{}
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	s.b.Start()
	s.keys.Say(s.room, "unread")
	<-tried
	s.b.Stop()
	remove()
	s.b.Config.Encryption.Mode = "ghosts"
	s.b.Start()
	s.networkSays("said behind it")
	s.reads(s.bob(), "said behind it")
	s.nothingPlain()
}
