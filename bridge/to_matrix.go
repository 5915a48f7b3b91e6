package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// This file is the first half of the journey network → Matrix: what a Session delivers becomes outbox rows, and Deliver
// returns when they are durable. outbox.go is the second half.

// sink is what one Session delivers into.
type sink struct {
	b    *Bridge
	user id.UserID // whose login it is; empty for the relay's
}

var _ Sink = (*sink)(nil)

func (s *sink) Deliver(ctx context.Context, in *Incoming) error {
	b := s.b
	p := b.portals.channel(in.Channel)
	if p == nil {
		return ErrNoPortal
	}
	if own, err := b.ownWords(ctx, in); err != nil || own {
		return err
	}
	rows, err := b.convert(ctx, p, in)
	if err != nil {
		return fmt.Errorf("taking in %s from %s: %w", in.what(), in.Channel, err)
	}
	if len(rows) == 0 {
		return nil
	}
	err = b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		if !b.portals.has(p) {
			return ErrNoPortal // taken away while this was on its way
		}
		for _, row := range rows {
			if row.Op == opRedact {
				if err := b.cancel(tx, row); err != nil {
					return err
				}
			}
			if err := b.enqueue(tx, row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storing %s from %s: %w", in.what(), in.Channel, err)
	}
	if in.Topic != nil {
		p.setTopic(in.Topic.Text)
	}
	return nil
}

func (in *Incoming) what() string {
	switch {
	case in.Text != nil:
		return "a message"
	case in.File != nil:
		return "a file"
	case in.Join != nil:
		return "a join"
	case in.Leave != nil:
		return "a leave"
	case in.Rename != nil:
		return "a new name"
	case in.Topic != nil:
		return "a topic"
	case in.Redact != nil:
		return "a redaction"
	case in.React != nil:
		return "a reaction"
	case in.Members != nil:
		return "a list of members"
	}
	return "nothing"
}

var errEmptyIncoming = errors.New("the session delivered an Incoming with nothing in it: set exactly one of its pointers")

// convert says what must be done on Matrix. It asks the network nothing, and the homeserver only to upload a file.
func (b *Bridge) convert(ctx context.Context, p *portal, in *Incoming) ([]*outgoing, error) {
	switch {
	case in.Text != nil:
		return []*outgoing{b.message(p, in, textContent(in.Text), in.Text.ReplyTo)}, nil
	case in.File != nil:
		content, err := b.upload(ctx, p, in)
		if err != nil {
			return nil, err
		}
		return []*outgoing{b.message(p, in, content, "")}, nil
	case !b.cfg.Bridge.Membership.ToMatrix && (in.Join != nil || in.Leave != nil || in.Rename != nil || in.Members != nil):
		return nil, nil
	case in.Join != nil:
		return memberChanges(p, []RemoteUser{in.Sender}, nil, ""), nil
	case in.Leave != nil:
		reason := in.Leave.Reason
		if in.Leave.By != "" {
			reason = strings.TrimSuffix("kicked by "+in.Leave.By+": "+reason, ": ")
		}
		return memberChanges(p, nil, []id.UserID{b.ghostID(in.Sender)}, reason), nil
	case in.Rename != nil:
		from, to := b.ghostID(in.Rename.From), b.ghostID(in.Sender)
		if from == to { // only the case of the name changed
			return memberChanges(p, []RemoteUser{in.Sender}, nil, ""), nil
		}
		return memberChanges(p, []RemoteUser{in.Sender}, []id.UserID{from}, "is now known as "+in.Sender.displayName()), nil
	case in.Redact != nil:
		return []*outgoing{redaction(p, in.Redact)}, nil
	case in.React != nil:
		return []*outgoing{reaction(p, in)}, nil
	case in.Topic != nil:
		return b.topicFromNetwork(p, in), nil
	case in.Members != nil:
		return onlyMembers(p, in.Members.Users, "not in the channel any more"), nil
	}
	return nil, errEmptyIncoming
}

// message makes the outbox row of a message. Its transaction ID comes from the network's own ID of the message, so that a
// second delivery asks for the same thing.
func (b *Bridge) message(p *portal, in *Incoming, content *event.MessageEventContent, replyTo string) *outgoing {
	remoteID, key := in.ID, ""
	if remoteID == "" {
		remoteID = assignID()
	} else {
		key = messageKey(p, remoteID)
	}
	sender := in.Sender                  // the caller's may change
	content.Mentions = &event.Mentions{} // nobody is mentioned by accident (MSC3952)
	return &outgoing{
		Op: opMessage, Room: p.Room, Channel: p.Channel, User: &sender, Key: key,
		RemoteID: remoteID, ReplyTo: replyTo, Type: event.EventMessage.Type, Content: mustJSON(content),
		Timestamp: unixMilli(in.Time),
	}
}

func textContent(text *Text) *event.MessageEventContent {
	content := &event.MessageEventContent{MsgType: event.MsgText, Body: text.Body}
	switch text.Kind {
	case KindEmote:
		content.MsgType = event.MsgEmote
	case KindNotice:
		content.MsgType = event.MsgNotice
	}
	if text.HTML != "" {
		content.Format, content.FormattedBody = event.FormatHTML, text.HTML
	}
	return content
}

// topicFromNetwork sets the room's topic as the bot: ghosts have no power in a room.
func (b *Bridge) topicFromNetwork(p *portal, in *Incoming) []*outgoing {
	if p.currentTopic() == in.Topic.Text {
		return nil
	}
	row := &outgoing{
		Op: opState, Room: p.Room, Channel: p.Channel, Type: event.StateTopic.Type,
		Content: mustJSON(&event.TopicEventContent{Topic: in.Topic.Text}), SavePortal: true,
	}
	return []*outgoing{row}
}

// notice makes the row of a sentence of the bot's own, in answer to an event or on its own.
func (b *Bridge) notice(room id.RoomID, text string, inReplyTo id.EventID) *outgoing {
	content := &event.MessageEventContent{MsgType: event.MsgNotice, Body: text, Mentions: &event.Mentions{}}
	remoteID := assignID()
	if inReplyTo != "" {
		content.RelatesTo = (&event.RelatesTo{}).SetReplyTo(inReplyTo)
		remoteID = deriveTxnID("answer", string(inReplyTo), text)
	}
	return &outgoing{Op: opMessage, Room: room, RemoteID: remoteID, Type: event.EventMessage.Type, Content: mustJSON(content)}
}

// effect makes an outbox row an effect: it is committed together with the progress of the event that asked for it.
func (b *Bridge) effect(row *outgoing) appservice.Effect {
	return func(tx *store.Tx) error { return b.enqueue(tx, row) }
}

// answer is a notice in answer to an event, as effects.
func (b *Bridge) answer(ev *appservice.Event, text string) []appservice.Effect {
	return []appservice.Effect{b.effect(b.notice(ev.RoomID, text, ev.ID))}
}

func mustJSON(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("bridge: encoding %T: %v", v, err)) // our own types: cannot fail
	}
	return data
}
