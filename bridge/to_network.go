package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

// This file is the journey Matrix → network: a room's lane hands in one event after another, and what HandleEvent
// returns is committed together with the progress.

var (
	_ appservice.Handler       = (*Bridge)(nil)
	_ appservice.BuriedHandler = (*Bridge)(nil)

	_ appservice.RedactionHandler = (*Bridge)(nil)
)

// HandleEvent is called by the room's lane, one event at a time.
func (b *Bridge) HandleEvent(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if ev.Kind != store.KindPDU {
		return nil, b.handleKeys(ctx, ev)
	}
	if b.as.IsGhost(ev.Sender) || ev.Sender == b.as.Bot().UserID() {
		return b.echo(ev), nil
	}
	switch ev.Type {
	case event.EventMessage.Type, event.EventSticker.Type, pollStart, pollStartOld:
		return b.handlePlain(ctx, ev)
	case event.EventEncrypted.Type:
		return b.handleEncrypted(ctx, ev)
	case event.StateMember.Type:
		return b.handleMember(ctx, ev)
	case event.StateTopic.Type:
		return b.handleTopic(ctx, ev)
	case event.EventRedaction.Type:
		return b.handleRedaction(ctx, ev)
	case event.EventReaction.Type:
		return b.handlePlainReaction(ctx, ev)
	case event.StateEncryption.Type:
		if ev.StateKey != nil && *ev.StateKey == "" {
			return b.becameEncrypted(ctx, ev.RoomID)
		}
	}
	return nil, nil
}

const pollStart, pollStartOld = "m.poll.start", "org.matrix.msc3381.poll.start"

// handlePlain takes what somebody wrote in the clear.
func (b *Bridge) handlePlain(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	decoded, err := ev.Decode()
	if err != nil {
		return nil, appservice.Permanent(fmt.Errorf("it is not a message that this bridge understands: %w", err))
	}
	if err := b.takesPlain(ctx, ev.RoomID); err != nil {
		return nil, err
	}
	return b.handleContent(ctx, ev, decoded)
}

// handleContent goes on with what somebody wrote: decoded is ev itself, or what was encrypted in it.
func (b *Bridge) handleContent(ctx context.Context, ev *appservice.Event, decoded *event.Event) ([]appservice.Effect, error) {
	switch decoded.Type.Type {
	case event.EventMessage.Type, event.EventSticker.Type:
		return b.handleMessage(ctx, ev, decoded)
	case event.EventReaction.Type:
		return b.handleReaction(ctx, ev, decoded)
	case pollStart, pollStartOld:
		return nil, appservice.Permanent(fmt.Errorf("%s has no polls", b.info.Name))
	}
	return nil, nil
}

// Buried tells the sender of an undeliverable message, in the room, what became of it.
func (b *Bridge) Buried(ctx context.Context, ev *appservice.Event, cause error) []appservice.Effect {
	if ev.RoomID == "" || ev.StateKey != nil {
		return nil
	}
	if isEncrypted(cause) {
		return b.sentence(ev.RoomID)
	}
	if why := unreadable(cause); why != "" {
		return b.tellUnread(ev, why)
	}
	if b.portals.room(ev.RoomID) == nil && b.abandoned[ev.RoomID] == "" {
		return nil
	}
	return b.showUndelivered(ev, cause)
}

// sentence says once, in plain text, why the bridge is silent in an encrypted room. When modes were changed it is said anew, and with one transaction ID for
// ever the homeserver would take it for a repetition.
func (b *Bridge) sentence(room id.RoomID) []appservice.Effect {
	row := &outgoing{
		Op: opSentence, Room: room, RemoteID: "sentence", Again: assignID(),
		Content: mustJSON(crypto.Sentence(b.info.Name)),
	}
	return []appservice.Effect{func(tx *store.Tx) error {
		first, err := crypto.SentenceOnce(tx, room)
		if err != nil || !first {
			return err
		}
		return b.enqueue(tx, row)
	}}
}

func (b *Bridge) handleMessage(ctx context.Context, ev *appservice.Event, decoded *event.Event) ([]appservice.Effect, error) {
	content := decoded.Content.AsMessage()
	if decoded.Type.Type == event.EventMessage.Type && content.MsgType == "" && content.Body == "" {
		return nil, nil // redacted before it came here: there is nothing to send
	}
	if words, ok := b.parseCommand(content.Body); ok && content.MsgType == event.MsgText {
		return b.handleCommand(ctx, ev, words)
	}
	p := b.portals.room(ev.RoomID)
	if p == nil {
		if channel := b.abandonedChannel(ev.RoomID, time.UnixMilli(decoded.Timestamp)); channel != "" || ev.InDoubt {
			return nil, appservice.Permanent(fmt.Errorf("this room is no longer connected to %s", cmp.Or(channel, b.info.Name)))
		}
		return nil, nil
	}
	if err := b.admits(ctx, ev.RoomID); isEncrypted(err) {
		return nil, appservice.Permanent(err)
	} else if err != nil {
		return nil, err
	}
	if gone, err := b.withdrawn(ctx, ev, time.UnixMilli(decoded.Timestamp)); err != nil || gone && !ev.InDoubt {
		return nil, err
	}
	msg, err := b.toMessage(ctx, p, ev, decoded, content)
	if err != nil {
		return nil, err
	}
	if ev.InDoubt {
		effects, done, err := b.settle(ctx, ev, msg, InDoubt(errors.New("the bridge was stopped while it was sending it")))
		if done {
			return effects, err
		}
	}
	over, failed := b.leaving(p)
	sent, err := b.send(ctx, ev, msg)
	if err != nil {
		failed()
	}
	switch {
	case err == nil:
		b.setOffline(false)
		return append(b.delivered(ev), rememberSent(msg, sent), over), nil
	case errors.Is(err, ErrOffline):
		b.setOffline(true)
		return nil, appservice.Later(err)
	case IsPermanent(err) && b.guarantee() == AtLeastOnce && (ev.InDoubt || ev.Attempts > 0):
		return nil, appservice.Permanent(InDoubt(fmt.Errorf("%w; an earlier attempt may have arrived", err)))
	case IsPermanent(err):
		return nil, appservice.Permanent(err)
	case IsInDoubt(err):
		if effects, done, err := b.settle(ctx, ev, msg, err); done {
			return effects, err
		}
	}
	return nil, fmt.Errorf("sending it: %w", err)
}

// send hands a message to the session; it is marked as in doubt before anything of it can leave.
// It goes through the sender's own login, or while that is offline through the relay's.
func (b *Bridge) send(ctx context.Context, ev *appservice.Event, msg *Message) (sent Sent, err error) {
	for _, session := range b.speakers(ev.Sender) {
		if sent, err = b.sendBy(ctx, session, ev, msg); !errors.Is(err, ErrOffline) {
			break
		}
	}
	return sent, err
}

func (b *Bridge) sendBy(ctx context.Context, session Session, ev *appservice.Event, msg *Message) (Sent, error) {
	if marker, ok := session.(DoubtMarker); ok {
		return marker.SendMarked(ctx, msg, ev.Doubt)
	}
	if err := ev.Doubt(ctx); err != nil {
		return Sent{}, fmt.Errorf("marking it as under way: %w", err)
	}
	return session.Send(ctx, msg)
}

// rememberSent maps each part of a message to its event, so that replies find it. A message without a remote ID is
// remembered under its event ID: redactions and replies from Matrix find it all the same.
func rememberSent(msg *Message, sent Sent) appservice.Effect {
	ids := sent.IDs
	if len(ids) == 0 {
		ids = []string{string(msg.ID)}
	}
	return func(tx *store.Tx) error {
		for part, remoteID := range ids {
			if err := tx.PutMessage(&store.Message{
				Channel: msg.Channel, RemoteID: remoteID, Part: part, Event: string(msg.ID), Room: string(msg.Room),
				Sender: string(msg.Sender.ID), FromMatrix: true, At: time.Now(),
			}); err != nil {
				return err
			}
		}
		return nil
	}
}

var kindOf = map[event.MessageType]Kind{
	event.MsgText: KindText, event.MsgEmote: KindEmote, event.MsgNotice: KindNotice,
	event.MsgImage: KindImage, event.MsgVideo: KindVideo, event.MsgAudio: KindAudio, event.MsgFile: KindFile,
	event.MsgLocation: KindText,
}

func msgTypeOf(mime string) event.MessageType {
	for prefix, msgType := range map[string]event.MessageType{"image/": event.MsgImage, "video/": event.MsgVideo, "audio/": event.MsgAudio} {
		if len(mime) > len(prefix) && mime[:len(prefix)] == prefix {
			return msgType
		}
	}
	return event.MsgFile
}

func (b *Bridge) toMessage(ctx context.Context, p *portal, ev *appservice.Event, decoded *event.Event, content *event.MessageEventContent) (*Message, error) {
	name, err := b.names.of(ctx, ev.RoomID, ev.Sender)
	if err != nil {
		return nil, err
	}
	reply, err := b.replyOf(ctx, ev.RoomID, content, time.UnixMilli(decoded.Timestamp))
	if err != nil {
		return nil, err
	}
	of, edited := ev.ID, content.RelatesTo.GetReplaceID()
	edit := edited != "" && content.NewContent != nil
	if edit {
		content = content.NewContent
		forged, err := b.isAnothers(ctx, edited, ev)
		if err != nil {
			return nil, err
		}
		if !forged {
			of = edited // an edit's link ends with the edited message
		}
	}
	msg := &Message{
		ID: ev.ID, Channel: p.Channel, Room: ev.RoomID, Sender: Sender{ID: ev.Sender, Name: name},
		Kind: kindOf[content.MsgType], Text: content.Body, ReplyTo: reply, Time: time.UnixMilli(decoded.Timestamp), Attempt: ev.Attempts,
	}
	if content.Format == event.FormatHTML {
		msg.HTML = content.FormattedBody
	}
	if decoded.Type.Type == event.EventSticker.Type {
		msg.Kind = KindSticker
	}
	page := proxy.Page{Author: name, Room: ev.RoomID, Event: of, Sender: ev.Sender, Written: msg.Time}
	if of != ev.ID {
		page.Edit = ev.ID
	}
	switch files := galleryFiles(content, decoded, edit); {
	case len(files) > 0:
		err = b.addGallery(ctx, msg, content, files, page)
	case msg.Kind == "":
		msg.Kind = KindText // an unknown msgtype is shown by its body, as the specification wants
	case content.MsgType.IsMedia() || msg.Kind == KindSticker:
		err = b.addMedia(ctx, msg, content, page)
	}
	if err == nil {
		err = b.offerPage(ctx, msg, page)
	}
	if err != nil {
		return nil, err
	}
	if edit && (msg.Media == nil || msg.Text != "") { // a file without a caption has no text to mark
		// A network that cannot edit sees the new text as a new message, marked as Matrix clients mark it.
		msg.Text = "* " + msg.Text
		if msg.HTML != "" {
			msg.HTML = "* " + msg.HTML
		}
	}
	return msg, nil
}

// replyOf says what a message answers, from the message map: what the message itself quotes could be made up (MSC2781).
func (b *Bridge) replyOf(ctx context.Context, room id.RoomID, content *event.MessageEventContent, written time.Time) (*Reply, error) {
	target := content.RelatesTo.GetNonFallbackReplyTo()
	if target == "" {
		return nil, nil
	}
	reply := &Reply{Event: target}
	found, err := b.store.MessagesByEvent(ctx, string(target))
	if err != nil {
		return nil, fmt.Errorf("looking up the message that is answered: %w", err)
	}
	if len(found) == 0 {
		if err := b.awaitsRow(room, written); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 || found[0].Room != string(room) {
		return reply, nil // unknown, or of another room: not for the people here
	}
	first := found[0]
	reply.Remote = !first.FromMatrix
	if first.RemoteID != first.Event {
		reply.RemoteID = first.RemoteID
	}
	if reply.Remote {
		if ghost, err := b.store.Ghost(ctx, first.Sender); err == nil {
			reply.Name = ghost.DisplayName
		} else if !errors.Is(err, store.ErrNotFound) {
			return nil, fmt.Errorf("looking up who wrote the message that is answered: %w", err)
		}
		return reply, nil
	}
	reply.Name, err = b.names.of(ctx, room, id.UserID(first.Sender))
	return reply, err
}

// isAnothers tells whether an event edits what somebody else wrote. It is then a message of its own, which is deleted by itself.
func (b *Bridge) isAnothers(ctx context.Context, edited id.EventID, ev *appservice.Event) (bool, error) {
	found, err := b.store.MessagesByEvent(ctx, string(edited))
	if err != nil {
		return false, fmt.Errorf("looking up the message that is edited: %w", err)
	}
	return len(found) > 0 && (found[0].Sender != string(ev.Sender) || found[0].Room != string(ev.RoomID)), nil
}

// handleTopic sets the channel's topic. It needs no doubt: a topic set twice is the same topic.
func (b *Bridge) handleTopic(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	p := b.portals.room(ev.RoomID)
	if p == nil || ev.StateKey == nil || *ev.StateKey != "" {
		return nil, nil
	}
	decoded, err := ev.Decode()
	if err != nil {
		return nil, appservice.Permanent(err)
	}
	topic := decoded.Content.AsTopic().Topic
	if topic == p.currentTopic() {
		return nil, nil
	}
	setter, ok := b.session().(TopicSender)
	if !ok {
		return b.answer(ev, fmt.Sprintf("%s has no topics that I can set.", b.info.Name)), nil
	}
	name, err := b.names.of(ctx, ev.RoomID, ev.Sender)
	if err != nil {
		return nil, err
	}
	set, err := setter.SendTopic(ctx, p.Channel, topic, Sender{ID: ev.Sender, Name: name})
	switch {
	case errors.Is(err, ErrOffline):
		b.setOffline(true)
		return nil, appservice.Later(err)
	case IsPermanent(err):
		return b.answer(ev, fmt.Sprintf("The topic of %s stays as it is: %v.", p.Channel, err)), nil
	case err != nil:
		return nil, fmt.Errorf("setting the topic of %s: %w", p.Channel, err)
	}
	p.setTopic(set)
	effects := []appservice.Effect{func(tx *store.Tx) error {
		if !b.portals.has(p) {
			return nil
		}
		return tx.PutPortal(p.row())
	}}
	if set != topic {
		effects = append(effects, b.answer(ev, fmt.Sprintf("On %s the topic is shorter: %s", b.info.Name, set))...)
	}
	return effects, nil
}

// Redacted kills the links of a redacted message, and ends its wait for a key, in the commit that takes the redaction in: what waits in its room, for a network
// that is away say, does not keep them alive.
func (b *Bridge) Redacted(ev *appservice.Event) []appservice.Effect {
	if b.as.IsGhost(ev.Sender) || ev.Sender == b.as.Bot().UserID() {
		return nil
	}
	target, err := redacted(ev)
	if err != nil || target == "" {
		return nil // it says so in its turn
	}
	return []appservice.Effect{endMessage(ev.RoomID, target)}
}
