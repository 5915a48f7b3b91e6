package appservice_test

import (
	"regexp"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// A refusal that is about who leaves does not say that there is nothing to leave.
func TestWithdraw_UserWhoIsRefused_IsStillInTheRoomAndSaysSo(t *testing.T) {
	for _, refusal := range []bridgetest.Fault{
		{Status: 403, ErrCode: "M_RESOURCE_LIMIT_EXCEEDED"}, {Status: 403, ErrCode: "M_USER_DEACTIVATED"},
		{Status: 403, ErrCode: "M_USER_SUSPENDED"}, {Status: 403, ErrCode: "ORG.MATRIX.MSC3823.USER_SUSPENDED"}, {Status: 403, ErrCode: "M_MISSING_TOKEN"},
	} {
		t.Run(refusal.ErrCode, func(t *testing.T) {
			s := newSite(t, bridgetest.Synapse)
			s.mustSay("1")
			refusal.Method, refusal.Path, refusal.Times = "POST", regexp.MustCompile("/leave$|/forget$"), -1
			s.hs.Fault(refusal)
			if left, err := s.as.Ghost(ghost).Withdraw(t.Context(), []id.RoomID{s.room}, ""); err == nil || left != 0 {
				t.Errorf("left %d rooms, %v", left, err)
			}
		})
	}
}
