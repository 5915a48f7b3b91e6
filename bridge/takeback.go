package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/store"
)

// This file is redactions and reactions, where the network has such. A reaction is in the message map under who says it, to what, and its key, so that it is found
// when it is taken back. Several Matrix users may share one on the network: each is a part of it, and an empty event is one that was taken back.

const (
	reactionSpace = "reaction\x00"
	ofNetwork     = "network " // before who reacts: nobody there is taken for one of our sessions
	ofMatrix      = "matrix "
	// maxReactionKey bounds what is stored under a key, in bytes: it is part of a key of the store's, and an emoji has 35 at most.
	maxReactionKey = 256
)

func reactionID(to, key, who string) string { return reactionSpace + to + "\x00" + key + "\x00" + who }

// isReactionKey says whether a key can cross.
func isReactionKey(key string) bool {
	return key != "" && len(key) <= maxReactionKey && utf8.ValidString(key) && !strings.ContainsRune(key, 0)
}

// reaction makes the row of a reaction that comes from the network, or of its end.
func reaction(p *portal, in *Incoming) *outgoing {
	key := ""
	again := in.ID
	if again == "" {
		again = assignID()
	} else {
		key = messageKey(p, in.ID)
	}
	who := reactionID(in.React.To, in.React.Key, ofNetwork+in.Sender.ID)
	if in.React.Removed {
		return &outgoing{Op: opRedact, Room: p.Room, Channel: p.Channel, RemoteID: who, Key: key, Again: again}
	}
	sender := in.Sender
	content := &event.ReactionEventContent{RelatesTo: event.RelatesTo{Type: event.RelAnnotation, Key: in.React.Key}}
	return &outgoing{
		Op: opMessage, Room: p.Room, Channel: p.Channel, User: &sender, Key: key, Again: again, RemoteID: who, ReplyTo: in.React.To,
		Type: event.EventReaction.Type, Content: mustJSON(content), Timestamp: unixMilli(in.Time),
	}
}

// reactionContent points a reaction at its message; it is nil where there is none.
func reactionContent(o *outgoing, found []store.Message, here bool) json.RawMessage {
	var content event.ReactionEventContent
	if !here || json.Unmarshal(o.Content, &content) != nil {
		return nil
	}
	content.RelatesTo.EventID = id.EventID(found[0].Event)
	return mustJSON(&content)
}

func isCode(err error, code string) bool {
	var http mautrix.HTTPError
	return errors.As(err, &http) && http.RespError != nil && http.RespError.ErrCode == code
}

// endMessage kills the links of a redacted message, and forgets one that waits for its key.
func endMessage(room id.RoomID, target id.EventID) appservice.Effect {
	return func(tx *store.Tx) error {
		if err := tx.WithdrawParked(string(room), string(target)); err != nil {
			return err
		}
		_, err := tx.RevokeMedia(string(room), string(target))
		return err
	}
}

// redacted is what a redaction takes back, or "".
func redacted(ev *appservice.Event) (id.EventID, error) {
	decoded, err := ev.Decode()
	if err != nil {
		return "", appservice.Permanent(err)
	}
	if target := decoded.Content.AsRedaction().Redacts; target != "" {
		return target, nil
	}
	return decoded.Redacts, nil // before room version 11 it stands beside the content
}

// handleRedaction takes a message back on the network, or a reaction. Its links died in the commit that took the redaction in; they do once more, for redactions
// that were taken in before they were told of at once.
func (b *Bridge) handleRedaction(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	target, err := redacted(ev)
	if err != nil || target == "" {
		return nil, err
	}
	effects := []appservice.Effect{endMessage(ev.RoomID, target)}
	p := b.portals.room(ev.RoomID)
	if p == nil || !b.takesBack() {
		return effects, nil
	}
	if err := ev.Doubt(ctx); err != nil { // with which what came before it is committed, and is seen below
		return nil, err
	}
	found, err := b.store.MessagesByEvent(ctx, string(target))
	if err != nil {
		return nil, fmt.Errorf("looking up what is redacted: %w", err)
	}
	var parts []string
	author := ev.Sender
	for _, m := range found {
		switch {
		case m.Channel != p.Channel || m.Room != string(ev.RoomID) || m.RemoteID == m.Event:
		case strings.HasPrefix(m.RemoteID, reactionSpace):
			return b.endReaction(ctx, ev, p, m, effects)
		default:
			parts = append(parts, m.RemoteID)
			if m.FromMatrix {
				author = id.UserID(m.Sender)
			}
		}
	}
	if len(parts) == 0 {
		return effects, nil
	}
	decoded, err := ev.Decode()
	if err != nil {
		return nil, appservice.Permanent(err)
	}
	by, err := b.senderOf(ctx, ev)
	if err != nil {
		return nil, err
	}
	own, err := b.voice(ctx, ev.RoomID, author)
	if err != nil {
		return nil, err
	}
	// A network lets each take back its own. The author's login goes first; the relay may have said it, before there was a login or while that was away.
	for _, session := range []Session{own, b.session()} {
		redacter, ok := session.(Redacter)
		if !ok || !redacter.Redacts() {
			continue
		}
		if err = redacter.SendRedaction(ctx, p.Channel, parts, decoded.Content.AsRedaction().Reason, by); err == nil {
			return effects, nil
		}
	}
	switch {
	case errors.Is(err, ErrOffline): // the relay's, which was asked last: nobody waits for a user's own login alone
		return nil, appservice.Later(err)
	case IsPermanent(err):
		return append(effects, b.answer(ev, fmt.Sprintf("%s did not take the message back: %v.", b.info.Name, err))...), nil
	case err != nil:
		return nil, fmt.Errorf("taking a message back on %s: %w", b.info.Name, err)
	}
	return effects, nil
}

// takesBack says whether the network has anything to take back.
func (b *Bridge) takesBack() bool {
	redacter, redacts := b.session().(Redacter)
	reacter, reacts := b.session().(Reacter)
	return redacts && redacter.Redacts() || reacts && reacter.Reacts()
}

// voice is the session of a user's own login while they are in the room, or nil: the relay speaks for who is not, and nobody's login comes back for what is
// taken back.
func (b *Bridge) voice(ctx context.Context, room id.RoomID, user id.UserID) (Session, error) {
	own := b.logins.get(user)
	if own == nil {
		return nil, nil
	}
	membership, err := b.store.Member(ctx, string(room), string(user))
	if err != nil {
		return nil, fmt.Errorf("looking up whether the user of a login is in the room: %w", err)
	}
	if membership != "join" {
		return nil, nil
	}
	return own.session, nil
}

func (b *Bridge) senderOf(ctx context.Context, ev *appservice.Event) (Sender, error) {
	name, err := b.names.of(ctx, ev.RoomID, ev.Sender)
	return Sender{ID: ev.Sender, Name: name}, err
}

// handlePlainReaction takes a reaction in the clear in encrypted rooms, too, whatever the bridge takes there else: clients do not encrypt any. Where it does not read,
// nothing crosses.
func (b *Bridge) handlePlainReaction(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if b.portals.room(ev.RoomID) == nil {
		return nil, nil
	}
	if err := b.admits(ctx, ev.RoomID); isEncrypted(err) {
		return b.sentence(ev.RoomID), nil
	} else if err != nil {
		return nil, err
	}
	decoded, err := ev.Decode()
	if err != nil {
		return nil, appservice.Permanent(err)
	}
	return b.handleReaction(ctx, ev, decoded)
}

// handleReaction reacts on the network, unless somebody for whom the same Session speaks has. decoded is ev itself, or what was encrypted in it.
func (b *Bridge) handleReaction(ctx context.Context, ev *appservice.Event, decoded *event.Event) ([]appservice.Effect, error) {
	p := b.portals.room(ev.RoomID)
	if p == nil {
		return nil, nil
	}
	speaker, who := b.session(), ofMatrix+RelayLogin
	if own, err := b.voice(ctx, ev.RoomID, ev.Sender); err != nil {
		return nil, err
	} else if own != nil {
		speaker, who = own, ofMatrix+string(ev.Sender)
	}
	session, ok := speaker.(Reacter)
	if !ok || !session.Reacts() {
		return nil, nil // it costs nothing
	}
	about := decoded.Content.AsReaction().RelatesTo
	if !isReactionKey(about.Key) {
		return nil, nil
	}
	if err := ev.Doubt(ctx); err != nil { // with which what came before it is committed, and is seen below
		return nil, err
	}
	found, err := b.store.MessagesByEvent(ctx, string(about.EventID))
	if err != nil {
		return nil, fmt.Errorf("looking up what is reacted to: %w", err)
	}
	if len(found) == 0 {
		return nil, b.awaitsRow(ev.RoomID, time.UnixMilli(decoded.Timestamp))
	}
	m := found[0]
	if m.Channel != p.Channel || m.Room != string(ev.RoomID) || m.RemoteID == m.Event || strings.HasPrefix(m.RemoteID, reactionSpace) {
		return nil, nil // the network does not know it
	}
	remote := reactionID(m.RemoteID, about.Key, who)
	there, err := b.store.MessagesByRemote(ctx, p.Channel, remote)
	if err != nil {
		return nil, fmt.Errorf("looking up who has reacted so: %w", err)
	}
	part, others := 0, 0
	for _, other := range there {
		if part = max(part, other.Part+1); other.Event == string(ev.ID) {
			return nil, nil
		} else if other.Event != "" {
			others++
		}
	}
	if others == 0 {
		if there, err := b.react(ctx, session, ev, p, &React{To: m.RemoteID, Key: about.Key}); err != nil || !there {
			return nil, err
		}
	}
	return []appservice.Effect{func(tx *store.Tx) error {
		return tx.PutMessage(&store.Message{
			Channel: p.Channel, RemoteID: remote, Part: part, Event: string(ev.ID), Room: string(ev.RoomID), Sender: string(ev.Sender), FromMatrix: true,
		})
	}}, nil
}

// endReaction takes a reaction of a Matrix user back, with the last who has it. What a ghost has reacted the network has to take back.
func (b *Bridge) endReaction(ctx context.Context, ev *appservice.Event, p *portal, m store.Message, effects []appservice.Effect) ([]appservice.Effect, error) {
	of := strings.Split(strings.TrimPrefix(m.RemoteID, reactionSpace), "\x00")
	if !m.FromMatrix || len(of) != 3 {
		return effects, nil
	}
	there, err := b.store.MessagesByRemote(ctx, p.Channel, m.RemoteID)
	if err != nil {
		return nil, fmt.Errorf("looking up who has reacted so: %w", err)
	}
	others := 0
	for _, other := range there {
		if other.Event != "" && other.Event != m.Event {
			others++
		}
	}
	speaker := b.session()
	if who := strings.TrimPrefix(of[2], ofMatrix); who != RelayLogin {
		if speaker, err = b.voice(ctx, ev.RoomID, id.UserID(who)); err != nil {
			return nil, err
		}
	}
	if session, ok := speaker.(Reacter); ok && others == 0 && session.Reacts() {
		if _, err := b.react(ctx, session, ev, p, &React{To: of[0], Key: of[1], Removed: true}); err != nil {
			return nil, err
		}
	}
	m.Event = ""
	return append(effects, func(tx *store.Tx) error { return tx.PutMessage(&m) }), nil
}

// react is worth waiting for a network that is away, and nothing more. there: the network has it, or may have it.
func (b *Bridge) react(ctx context.Context, session Reacter, ev *appservice.Event, p *portal, r *React) (there bool, err error) {
	by, err := b.senderOf(ctx, ev)
	if err == nil {
		err = session.SendReaction(ctx, p.Channel, r, by)
	}
	switch {
	case errors.Is(err, ErrOffline) && any(session) == any(b.session()):
		return false, appservice.Later(err)
	case IsPermanent(err) || IsInDoubt(err) || errors.Is(err, ErrOffline):
		b.log.Info().Err(err).Str("channel", p.Channel).Msg("A reaction is not on the network")
		return IsInDoubt(err), nil
	}
	return err == nil, err
}
