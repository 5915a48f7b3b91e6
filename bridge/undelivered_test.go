package bridge_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// statusOf matches a delivery status event about a message.
func (c *crossing) statusOf(ev id.EventID, status string) func(bridgetest.Event) bool {
	return func(e bridgetest.Event) bool {
		relation, _ := e.Content["m.relates_to"].(map[string]any)
		return e.Sender == c.b.BotID() && e.Type == "com.beeper.message_send_status" && e.Content["status"] == status &&
			relation["rel_type"] == "m.reference" && relation["event_id"] == string(ev)
	}
}

func (c *crossing) fails(text string) id.EventID {
	c.Helper()
	c.net.FailSends(bridge.Permanent(errors.New("the channel is closed")))
	return c.says(text)
}

func TestUndelivered_ByConfiguration_IsShownAsNoticeAsStatusOrAsBoth(t *testing.T) {
	for how, want := range map[string]string{"both": "status notice", "notice": "notice", "event": "status"} {
		t.Run(how, func(t *testing.T) {
			c := newCrossing(t, func(cfg *bridge.Config) { cfg.Bridge.Undelivered = how })
			failed := c.fails("lost")
			c.deadLetters(1)
			c.says("!test status")
			c.seesNotice("This room is connected to lobby")
			var got []string
			for _, e := range must(c.alice.Timeline(c.ctx, c.room))(t) {
				switch {
				case c.statusOf(failed, "FAIL_RETRIABLE")(e) && e.Content["message"] == "the channel is closed" && e.Content["network"] == "test":
					got = append(got, "status")
				case e.Sender == c.b.BotID() && strings.Contains(e.Body(), "did not reach"):
					got = append(got, "notice")
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("the room was shown %q, want %q", got, want)
			}
		})
	}
}

func TestUndelivered_NetworkSaysMuch_NoticeIsShort(t *testing.T) {
	c := newCrossing(t)
	c.net.FailSends(bridge.Permanent(errors.New(strings.Repeat("no ", 5000))))
	c.says("lost")
	if notice := c.seesNotice("This message did not reach").Body(); len(notice) > 1000 || !strings.Contains(notice, "!test retry") {
		t.Errorf("the notice has %d bytes: %.100q", len(notice), notice)
	}
}

func TestRetry_BySender_SendsOnceAndSaysThatItWasDelivered(t *testing.T) {
	for name, answered := range map[string]func(message, notice id.EventID) id.EventID{
		"AnsweringTheMessage": func(message, _ id.EventID) id.EventID { return message },
		"AnsweringTheNotice":  func(_, notice id.EventID) id.EventID { return notice },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrossing(t)
			failed := c.fails("lost")
			notice := c.seesNotice(`Answer it with "!test retry" to have it sent again.`)
			for range 2 {
				must(c.alice.SendReply(c.ctx, c.room, answered(failed, notice.ID), "!test retry"))(t)
			}
			c.seesNotice("It is sent again.")
			c.arrives("lost")
			c.sees(c.statusOf(failed, "SUCCESS"))
			c.says("end")
			c.arrives("end")
			if sent := c.net.Sent(); len(sent) != 2 {
				t.Errorf("the network got %+v", sent)
			}
			if dead := c.deadLetters(0); len(dead) != 0 {
				t.Errorf("dead letters: %+v", dead)
			}
		})
	}
}

func TestRetry_ByANumber_IsForTheSenderAndForWhoMayCommand(t *testing.T) {
	c := newCrossing(t)
	carol := c.hs.User("carol")
	c.ok(c.alice.Invite(c.ctx, c.room, carol.ID()))
	must(carol.Join(c.ctx, string(c.room)))(t)
	c.fails("of alice")
	number := c.deadLetters(1)[0].ID
	must(carol.SendText(c.ctx, c.room, fmt.Sprintf("!test retry %d", number)))(t)
	c.seesNotice("Only who wrote a message may have it sent again. You need power level 50")
	must(carol.SendText(c.ctx, c.room, fmt.Sprintf("!test retry %d", number+1)))(t)
	c.seesNotice(fmt.Sprintf("This room has no dead letter %d.", number+1))
	must(carol.SendText(c.ctx, c.room, "!test retry"))(t)
	c.seesNotice(`Answer the message that is to be sent again with "!test retry"`)
	c.net.FailSends(bridge.Permanent(errors.New("still closed")))
	must(carol.SendText(c.ctx, c.room, "of carol"))(t)
	theirs := c.deadLetters(2)[1].ID
	c.says(fmt.Sprintf("!test retry %d", theirs)) // alice has made the room
	c.arrives("of carol")
	if sent := c.net.Sent(); len(sent) != 1 {
		t.Errorf("the network got %+v", sent)
	}
}

func TestRetry_OfWhatWasDelivered_SendsNothing(t *testing.T) {
	c := newCrossing(t)
	event := c.says("there")
	c.arrives("there")
	must(c.alice.SendReply(c.ctx, c.room, event, "!test retry"))(t)
	c.seesNotice("That message is not among those that were given up")
	if sent := c.net.Sent(); len(sent) != 1 {
		t.Errorf("the network got %+v", sent)
	}
}
