//go:build goolm

package e2e

import (
	"fmt"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/olmclient"
)

func TestSynapse_TwoStrictClients_ReadEachOtherThroughARestartNewDevicesAndNewMembers(t *testing.T) {
	synapse := StartSynapse(t, SynapseOptions{})
	anna, carol := synapse.Strict("anna"), synapse.Strict("carol")
	room := anna.CreateRoom("secret")
	carol.Join(room)
	anna.WaitFor("carol's joining", olmclient.Joined(room, carol.User))
	talk := func(what string, with *olmclient.Client) {
		t.Helper()
		for n := range 20 {
			anna.Say(room, fmt.Sprint(what, " a", n))
			with.Say(room, fmt.Sprint(what, " c", n))
		}
		for n := range 20 {
			with.WaitFor("a line of anna's", olmclient.Text(room, fmt.Sprint(what, " a", n)))
			if ev := anna.WaitFor("a line of the other's", olmclient.Text(room, fmt.Sprint(what, " c", n))); ev.Trust < id.TrustStateCrossSignedTOFU {
				t.Errorf("the trust is %s", ev.Trust)
			}
		}
	}
	talk("before", carol)
	synapse.Kill()
	synapse.Start()
	talk("after a restart", carol)
	phone := carol.NewDevice()
	anna.WaitUntil("the new device", func() bool {
		anna.Say(room, "are you there")
		return len(phone.Seen(olmclient.Text(room, "are you there"))) > 0
	})
	begin := len(phone.Unread(room)) // what was said before its keys were known
	carol.Logout()
	talk("on the new device", phone)
	dave := synapse.Strict("dave")
	dave.Join(room)
	anna.WaitFor("dave's joining", olmclient.Joined(room, dave.User))
	anna.Say(room, "welcome")
	dave.WaitFor("the welcome", olmclient.Text(room, "welcome"))
	if n := len(phone.Unread(room)); n != begin {
		t.Errorf("%d events could not be read, and %d at first", n, begin)
	}
	anna.Clean(room)
	dave.Clean(room)
}
