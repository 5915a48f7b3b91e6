//go:build goolm

package bridge_test

import (
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/internal/olmclient"
)

func TestEncryption_ModeOffOnceMore_IsSaidOnceMore(t *testing.T) {
	s := newSealed(t, "ghosts")
	sentences := func() int {
		return len(s.keys.Seen(func(ev *olmclient.Event) bool {
			body, _ := ev.Content["body"].(string)
			return ev.Sender == s.b.BotID() && strings.HasPrefix(body, "This room is encrypted, and I cannot read encrypted messages.")
		}))
	}
	change := func(mode string) {
		s.b.Stop()
		s.b.Config.Encryption.Mode = mode
		s.b.Start()
	}
	for times := 1; times <= 2; times++ {
		change("off")
		s.keys.Say(s.room, "unread")
		s.keys.Say(s.room, "unread as well")
		s.keys.WaitUntil("the sentence", func() bool { return sentences() == times })
		change("ghosts")
	}
	s.keys.Say(s.room, "read")
	s.arrives("read")
	if got := sentences(); got != 2 {
		t.Errorf("it was said %d times", got)
	}
}
