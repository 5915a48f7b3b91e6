package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// This file shows the sender of a message what became of it when it was not delivered, and lets them have it sent again.
// There are two ways to show it. A notice everybody can read; clients that know delivery status events mark the message itself.
// There is no accepted MSC for these: the shape is the one that bridges and Beeper's clients have in use, as documented by
// mautrix-go's event.BeeperMessageStatusEventContent (type com.beeper.message_send_status, an m.reference to the message).

// Values of BridgeConfig.Undelivered.
const (
	undeliveredBoth   = "both"
	undeliveredNotice = "notice"
	undeliveredEvent  = "event"
)

// showUndelivered tells in the room that a message was not delivered, or perhaps not, and why.
func (b *Bridge) showUndelivered(ev *appservice.Event, cause error) (effects []appservice.Effect) {
	why := clip(cause.Error()) // it may quote what somebody else wrote
	if b.cfg.Bridge.Undelivered != undeliveredNotice {
		status := &event.BeeperMessageStatusEventContent{
			Status: event.MessageStatusRetriable, Reason: event.MessageStatusGenericError, Message: why,
		}
		if IsInDoubt(cause) {
			status.Reason = event.MessageStatusNetworkError
		}
		effects = append(effects, b.status(ev, status))
	}
	if b.cfg.Bridge.Undelivered == undeliveredEvent {
		return effects
	}
	text := fmt.Sprintf("This message did not reach %s: %v.", b.info.Name, why)
	if IsInDoubt(cause) {
		text = fmt.Sprintf("This message may not have reached %s: %v. It is not sent again, so that it is not there twice.", b.info.Name, why)
	}
	return append(effects, b.answer(ev, fmt.Sprintf("%s Answer it with \"%s retry\" to have it sent again.", text, b.command))...)
}

// status is the effect that sends a delivery status event for a message.
func (b *Bridge) status(ev *appservice.Event, content *event.BeeperMessageStatusEventContent) appservice.Effect {
	content.Network = b.info.ID
	content.RelatesTo = event.RelatesTo{Type: event.RelReference, EventID: ev.ID}
	return b.effect(&outgoing{
		Op: opMessage, Room: ev.RoomID, Type: event.BeeperMessageStatus.Type, Content: mustJSON(content),
		RemoteID: deriveTxnID("status", string(ev.ID), string(content.Status), strconv.Itoa(ev.Attempts), content.Message),
	})
}

// retried are the messages that were taken up again by command since the start, and are not delivered yet.
type retried struct {
	mu     sync.Mutex
	events map[id.EventID]struct{}
}

func (r *retried) add(ev id.EventID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		r.events = map[id.EventID]struct{}{}
	}
	r.events[ev] = struct{}{}
}

// remove says whether it was one.
func (r *retried) remove(ev id.EventID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, was := r.events[ev]
	delete(r.events, ev)
	return was
}

// delivered takes back what was shown of a message that was delivered after all.
func (b *Bridge) delivered(ev *appservice.Event) []appservice.Effect {
	if !b.retried.remove(ev.ID) || b.cfg.Bridge.Undelivered == undeliveredNotice {
		return nil
	}
	return []appservice.Effect{b.status(ev, &event.BeeperMessageStatusEventContent{Status: event.MessageStatusSuccess})}
}

// commandRetry takes up a dead letter again, for who wrote the message or may give commands. That happens in the commit in which
// the letter goes, so that it cannot happen twice.
func (b *Bridge) commandRetry(ctx context.Context, call *call) (string, []appservice.Effect, error) {
	letter, reply, err := b.letterOf(ctx, call)
	if err != nil || letter == nil {
		return reply, nil, err
	}
	var written struct {
		Sender id.UserID  `json:"sender"`
		ID     id.EventID `json:"event_id"`
	}
	if letter.Kind == "pdu" {
		if err := json.Unmarshal(letter.Body, &written); err != nil {
			return "What is in that message cannot be read: its administrator has to look at it.", nil, nil
		}
	}
	if written.Sender != call.sender {
		if allowed, why, err := b.mayCommand(ctx, call.room, call.sender); err != nil || !allowed {
			return "Only who wrote a message may have it sent again. " + why, nil, err
		}
	}
	if written.ID != "" {
		if found, err := b.store.MessagesByEvent(ctx, string(written.ID)); err != nil {
			return "", nil, fmt.Errorf("looking up whether it was delivered: %w", err)
		} else if len(found) > 0 {
			return fmt.Sprintf("That message has reached %s meanwhile.", b.info.Name), nil, nil
		}
		b.retried.add(written.ID)
	}
	switch err := b.replay(ctx, letter.ID); {
	case err == nil:
		return "It is sent again.", nil, nil
	case errors.Is(err, store.ErrNotFound):
		return b.notWaiting(), nil, nil
	case appservice.IsPermanent(err):
		return fmt.Sprintf("It cannot be sent again: %v.", err), nil, nil
	default:
		b.retried.remove(written.ID)
		return "", nil, err
	}
}

func (b *Bridge) notWaiting() string {
	return "That message is not among those that were given up: it was delivered, or is under way."
}

// letterOf finds the dead letter that a command means: by its number, or as what the command answers, be it the message or the
// notice of its failure. Without one there is a reply that says why.
func (b *Bridge) letterOf(ctx context.Context, call *call) (letter *store.DeadLetter, reply string, err error) {
	if len(call.args) > 0 {
		number, err := strconv.ParseInt(strings.TrimPrefix(call.args[0], "#"), 10, 64)
		if err != nil {
			return nil, fmt.Sprintf("%q is no number of a dead letter.", clip(call.args[0])), nil
		}
		letter, err := b.store.DeadLetter(ctx, number)
		if errors.Is(err, store.ErrNotFound) || err == nil && letter.Lane != "room:"+string(call.room) && letter.Lane != string(call.room) {
			return nil, fmt.Sprintf("This room has no dead letter %d.", number), nil
		}
		return letter, "", err
	}
	if call.answers == "" {
		return nil, fmt.Sprintf("Answer the message that is to be sent again with \"%s retry\", or name the number of its dead letter.", b.command), nil
	}
	if letter, err = b.letterOfEvent(ctx, call.room, call.answers); err != nil || letter != nil {
		return letter, "", err
	}
	about, err := b.noticeAbout(ctx, call.room, call.answers)
	if err == nil && about != "" {
		letter, err = b.letterOfEvent(ctx, call.room, about)
	}
	return letter, b.notWaiting(), err
}

func (b *Bridge) letterOfEvent(ctx context.Context, room id.RoomID, ev id.EventID) (*store.DeadLetter, error) {
	q := store.LetterQuery{Kind: "pdu", Lanes: []string{"room:" + string(room)}, Newest: true, Limit: 500}
	for {
		letters, err := b.store.DeadLetters(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range letters {
			if letters[i].Key == string(ev) {
				return b.store.DeadLetter(ctx, letters[i].ID)
			}
		}
		if len(letters) < q.Limit {
			return nil, nil
		}
		q.After = letters[len(letters)-1].ID
	}
}

// noticeAbout gives the message that a notice of the bot's is about, or "".
func (b *Bridge) noticeAbout(ctx context.Context, room id.RoomID, notice id.EventID) (id.EventID, error) {
	raw, err := b.as.Bot().Event(ctx, room, notice)
	if errors.Is(err, mautrix.MNotFound) || isRefusal(err) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("reading what is answered: %w", err)
	}
	var said struct {
		Sender  id.UserID                 `json:"sender"`
		Content event.MessageEventContent `json:"content"`
	}
	if json.Unmarshal(raw, &said) != nil || said.Sender != b.as.Bot().UserID() {
		return "", nil
	}
	return said.Content.RelatesTo.GetReplyTo(), nil
}
