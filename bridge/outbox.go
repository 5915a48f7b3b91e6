package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/store"
)

// This file is the second half of the journey network → Matrix: lanes take the outbox rows in order and carry them out (comings.go
// says which, and in which order). A row leaves the store in the commit that records what it became.

const (
	opMessage  = "message"   // a message by a ghost, or by the bot
	opState    = "state"     // a state event by the bot
	opJoin     = "join"      // a ghost joins
	opLeave    = "leave"     // a ghost leaves
	opMembers  = "members"   // of every ghost but these a leave is wanted, and of these a join
	opBotJoin  = "bot-join"  // the bot accepts an invitation
	opRedact   = "redact"    // a message is taken back by who wrote it, or by the bot
	opSentence = "sentence"  // the one plain sentence in an encrypted room
	opBotLeave = "bot-leave" // the bot leaves a room it was taken out of
)

// outgoing is an outbox row's payload.
type outgoing struct {
	Op        string          `json:"-"`
	Key       string          `json:"-"`
	Room      id.RoomID       `json:"room"`
	Channel   string          `json:"channel,omitempty"`
	User      *RemoteUser     `json:"user,omitempty"`  // who acts; the bot if neither this nor Ghost is set
	Ghost     id.UserID       `json:"ghost,omitempty"` // who acts, where only the ghost is known
	Users     []RemoteUser    `json:"users,omitempty"`
	Type      string          `json:"type,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	RemoteID  string          `json:"remote_id,omitempty"`
	ReplyTo   string          `json:"reply_to,omitempty"`
	Timestamp int64           `json:"ts,omitempty"` // unix ms
	// SavePortal: the portal's row (its topic) is written when this is done.
	SavePortal bool `json:"save_portal,omitempty"`
	// Listed: it comes of a list of members, which says it again, and not of somebody's coming or going. A refusal is no dead letter.
	Listed bool `json:"listed,omitempty"`
	// Again tells apart what is asked for again after it was taken back.
	Again string `json:"-"`
	// Place is that of another row, among what is said in the room, that this one takes.
	Place int64 `json:"-"`
}

// enqueue writes a row, and hands it to its lane once the commit holds.
func (b *Bridge) enqueue(tx *store.Tx, o *outgoing) error {
	row := &store.Outgoing{Lane: string(o.Room), Key: o.Key, Op: o.Op, Payload: mustJSON(o)}
	actor := b.actor(o)
	if o.Op == opJoin || o.Op == opLeave {
		if row.Lane = comingLane(o.Room, actor); o.Place > 0 {
			row.Lane = listedLane(o.Room, actor, o.Place)
		}
	}
	asked := []string{b.cfg.Appservice.ID, string(actor), string(o.Room), o.Op, o.RemoteID}
	if o.Again != "" {
		asked = append(asked, o.Again)
	}
	row.TxnID = deriveTxnID(asked...)
	fresh, err := tx.Enqueue(row)
	if err != nil || !fresh {
		return err
	}
	if o.Op != opMembers {
		tx.AfterCommit(func() { b.fresh.put(row, o) }) // before its lane has it
	}
	b.comings.schedule(tx, row.Lane, row.ID)
	return nil
}

func (b *Bridge) actor(o *outgoing) id.UserID {
	switch {
	case o.User != nil:
		return b.ghostID(*o.User)
	case o.Ghost != "":
		return o.Ghost
	}
	return b.as.Bot().UserID()
}

// say is the work of rooms' lanes.
func (b *Bridge) say(ctx context.Context, lane string, rows []int64) (done int, retryAfter time.Duration) {
	return b.carryOut(ctx, lane, rows[0])
}

// move is the work of ghosts' lanes.
func (b *Bridge) move(ctx context.Context, lane string, rows []int64) (done int, retryAfter time.Duration) {
	if wait := b.comings.held(lane); wait > 0 {
		return 0, wait
	}
	return b.carryOut(ctx, lane, rows[0])
}

// carry does what a row wants, over which so many processes have ended. What it gives is to be committed, unless it has failed.
func (b *Bridge) carry(ctx context.Context, lane string, fresh freshRow, crashes int) (c *carried, err error) {
	c = &carried{ctx: ctx, lane: lane, row: fresh.row, o: fresh.o}
	b.arriving(c.row)
	if c.o == nil {
		c.o = new(outgoing)
		if err := json.Unmarshal(c.row.Payload, c.o); err != nil {
			return c, appservice.Permanent(fmt.Errorf("reading outbox row %d: %w", c.row.ID, err))
		}
		c.o.Op = c.row.Op
	}
	c.commit, err = b.try(appservice.Impatient(ctx), c.row, c.o, crashes) // the row waits for rate limits, and the worker does not
	return c, err
}

// notRecorded is what is said of a commit that has failed. What was sent stays sent: the same transaction ID asks for the same
// event at the next attempt.
func notRecorded(b *Bridge, err error) error {
	b.failIfLost(err)
	return fmt.Errorf("recording what was sent: %w", err)
}

// notDone sees to a row that could not be done: it is tried again later, or done with.
func (b *Bridge) notDone(c *carried, err error) (retryAfter time.Duration, done bool) {
	ctx, row, o := c.ctx, c.row, c.o
	room, ghost, _ := ofLane(row.Lane)
	log := b.log.With().Str("room", room).Str("op", row.Op).Int64("row", row.ID).Logger()
	defer func() {
		if done {
			b.arrived(row.Lane)
		}
	}()
	if errors.Is(err, errTargetUnderWay) || errors.Is(err, errGhostMoves) {
		b.careful.unmark(ctx, b, row)
		return relationPoll, false
	}
	if ctx.Err() != nil {
		b.careful.unmark(ctx, b, row)
		return retryDelay(0), false // shutting down: the row stays, the attempt does not count
	}
	if isPermanent(err) || row.Attempts >= refusalAttempts && isRefusal(err) || time.Since(row.Created) > outboxMaxAge {
		if err := b.bury(ctx, row, o, err); err != nil {
			log.Error().Err(err).Msg("Cannot put a row into the dead letters; trying again")
			return retryDelay(row.Attempts), false
		}
		b.unanswered.done(row)
		b.metrics.attempt("buried")
		return 0, true
	}
	b.metrics.attempt("retried")
	wait := retryDelay(row.Attempts)
	if asked := max(appservice.RetryAfter(err), appservice.LaterWait(err)); asked > 0 {
		wait = min(asked, longestWait) // it knows better than a delay that grows
		if ghost != "" {
			b.comings.hold(row.Lane, wait)
		}
	}
	log.Warn().Err(err).Int("attempt", row.Attempts+1).Dur("wait", wait).Msg("Could not do this on Matrix; trying again")
	if err := b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		return tx.OutgoingAttempt(row.ID, err.Error(), time.Now().Add(wait))
	}); err != nil {
		log.Error().Err(err).Msg("Cannot record a failed attempt")
	}
	return wait, false
}

// do asks the homeserver for what the row wants. What it returns is committed with the row's removal.
func (b *Bridge) do(ctx context.Context, row *store.Outgoing, o *outgoing) (commit func(tx *store.Tx) error, err error) {
	bot := b.as.Bot()
	switch o.Op {
	case opSentence, opBotJoin, opBotLeave, opRedact, opMessage: // opMessage looks last of all before it sends
	default:
		if ctx, err = b.keepsWords(ctx, o); err != nil {
			return nil, err
		}
		if err := b.admits(ctx, o.Room); isEncrypted(err) && o.Op != opState {
			if o.Op != opLeave && o.Op != opMembers {
				return nil, nil // nobody comes into a room in which nothing can be said
			}
			o.Users = nil
		} else if err != nil && !(o.Op == opJoin && errors.Is(err, mautrix.MForbidden)) { // who comes first can be asked then
			return nil, err
		}
	}
	switch o.Op {
	case opMessage:
		return b.sendMessage(ctx, row, o)
	case opSentence:
		if err := b.admits(ctx, o.Room); !isEncrypted(err) {
			return nil, err // it is not true any more: the mode was changed while it waited, and it would be in the clear
		}
		speaker, err := b.speaker(ctx, o.Room)
		if err != nil {
			return nil, err
		}
		_, err = b.as.Ghost(speaker).SendMessage(ctx, o.Room, event.EventMessage, o.Content, row.TxnID)
		return nil, err
	case opState:
		if _, err := bot.SendState(ctx, o.Room, event.Type{Type: o.Type, Class: event.StateEventType}, "", o.Content); err != nil {
			return nil, err
		}
		return b.savePortal(o), nil
	case opRedact:
		return nil, b.redact(ctx, row, o)
	case opJoin:
		_, err := b.ghostInRoom(ctx, o)
		return nil, b.tolerate(o, err)
	case opLeave:
		return nil, b.leave(ctx, o)
	case opMembers:
		return b.syncMembers(ctx, row, o)
	case opBotJoin:
		if err := bot.EnsureJoined(ctx, o.Room); err != nil {
			return nil, err
		}
		return nil, b.greet(ctx, o.Room)
	case opBotLeave:
		return nil, bot.Leave(ctx, o.Room, o.Reason)
	}
	return nil, appservice.Permanent(fmt.Errorf("outbox row %d asks for %q, which this version does not know", row.ID, o.Op))
}

// savePortal keeps the portal's topic, if the portal is still what it was.
func (b *Bridge) savePortal(o *outgoing) func(tx *store.Tx) error {
	p := b.portals.channel(o.Channel)
	if !o.SavePortal || p == nil || p.Room != o.Room {
		return nil
	}
	return func(tx *store.Tx) error {
		if !b.portals.has(p) {
			return nil
		}
		return tx.PutPortal(p.row())
	}
}

// ghostInRoom makes the ghost ready to act in the room: registered, named, joined. It gets its device when it first speaks.
func (b *Bridge) ghostInRoom(ctx context.Context, o *outgoing) (*appservice.Intent, error) {
	ghost := b.as.Ghost(b.actor(o))
	if err := ghost.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	if o.User != nil {
		if err := ghost.SetDisplayName(ctx, o.User.displayName()); err != nil {
			return nil, err
		}
	}
	if err := b.prepareGhost(ctx, o.Room, ghost); err != nil {
		return nil, err
	}
	return ghost, ghost.EnsureJoined(ctx, o.Room)
}

func (b *Bridge) sendMessage(ctx context.Context, row *store.Outgoing, o *outgoing) (commit func(tx *store.Tx) error, err error) {
	if o.User != nil && b.comings.wait(o.Room, b.actor(o), row.ID) {
		return nil, errGhostMoves
	}
	var sender *appservice.Intent
	if o.User != nil {
		sender, err = b.ghostInRoom(ctx, o)
	} else {
		var speaker id.UserID
		speaker, err = b.speaker(ctx, o.Room)
		sender = b.as.Ghost(speaker)
	}
	if err != nil {
		return nil, err
	}
	device, err := sender.EnsureDevice(ctx)
	if err != nil {
		return nil, err
	}
	if eventID, err := b.alreadySent(ctx, row, o, sender, device); err != nil {
		return nil, err
	} else if eventID != "" {
		return b.recordSent(o, sender.UserID(), eventID), nil
	}
	content, err := b.withReply(ctx, row, o)
	if err != nil || content == nil {
		return nil, err
	}
	// Last of all before bytes leave: plaintext never enters an encrypted room. Everything that could take long (joining,
	// the device) is done; where a refusal has it done once more, it is looked again.
	evType, content, err := b.wire(ctx, row, o, sender.UserID(), content)
	if err != nil {
		return nil, err
	}
	if evType.Type != event.EventEncrypted.Type {
		ctx = appservice.Looking(ctx, func(ctx context.Context) error { return b.stillPlain(ctx, o.Room) })
	}
	eventID, err := sender.SendMessage(ctx, o.Room, evType, withOutboxID(content, row.TxnID), row.TxnID)
	if o.Type == event.EventReaction.Type && isCode(err, "M_DUPLICATE_ANNOTATION") {
		return nil, nil // it is there already
	}
	if err != nil {
		return nil, err
	}
	return b.recordSent(o, sender.UserID(), eventID), nil
}

// withReply points a reply at the event that the answered message became: a relation, and no quoted text (MSC2781).
func (b *Bridge) withReply(ctx context.Context, row *store.Outgoing, o *outgoing) (json.RawMessage, error) {
	if o.ReplyTo == "" {
		return o.Content, nil
	}
	found, err := b.store.MessagesByRemote(ctx, o.Channel, o.ReplyTo)
	if err != nil {
		return nil, fmt.Errorf("looking up the message that is answered: %w", err)
	}
	if len(found) == 0 {
		if err := b.awaitsEvent(o.Channel, row); err != nil {
			return nil, err
		}
	}
	here := len(found) > 0 && found[0].Room == string(o.Room)
	if o.Type == event.EventReaction.Type {
		return reactionContent(o, found, here), nil
	}
	if !here {
		return o.Content, nil
	}
	var content event.MessageEventContent
	if err := json.Unmarshal(o.Content, &content); err != nil {
		return nil, appservice.Permanent(fmt.Errorf("reading a stored message: %w", err))
	}
	content.RelatesTo = (&event.RelatesTo{}).SetReplyTo(id.EventID(found[0].Event))
	return mustJSON(&content), nil
}

// longestWait is how long a row waits for a rate limit before it is tried again, whatever the homeserver says.
const longestWait = time.Hour

// refusalAttempts is how often a refusal that may be passing (a proxy in between, a homeserver that is starting) is tried
// again before it counts as one for good.
const refusalAttempts = 8

// isRefusal says whether the homeserver refused, rather than failed.
func isRefusal(err error) bool {
	var http mautrix.HTTPError
	if !errors.As(err, &http) || http.Response == nil || http.Response.StatusCode/100 != 4 || errors.Is(err, appservice.ErrServerLimit) {
		return false
	}
	switch http.Response.StatusCode {
	case 401, 408, 429: // the token, a time-out, the rate limit: none of them is about this request
		return false
	}
	return true
}

// isPermanent says which refusals no further attempt can mend.
func isPermanent(err error) bool {
	if appservice.IsPermanent(err) || errors.Is(err, crypto.ErrEncrypted) || isIdentityLost(err) {
		return true
	}
	var http mautrix.HTTPError
	if !errors.As(err, &http) || http.RespError == nil {
		return false
	}
	switch http.RespError.ErrCode {
	case "M_FORBIDDEN", "M_TOO_LARGE", "M_BAD_JSON", "M_NOT_JSON", "M_INVALID_PARAM", "M_BAD_STATE", "M_NOT_FOUND",
		"M_EXCLUSIVE", "M_UNSUPPORTED_ROOM_VERSION":
		return true
	}
	return false
}

// bury puts a row that cannot be carried out into the dead letters, and tells the network if it was somebody's message.
func (b *Bridge) bury(ctx context.Context, row *store.Outgoing, o *outgoing, cause error) error {
	if _, err := b.store.Outgoing(ctx, row.ID); errors.Is(err, store.ErrNotFound) {
		return nil // an echo has settled it meanwhile
	}
	b.log.Error().Err(cause).Stringer("room", o.Room).Str("op", row.Op).Msg("Giving up; it is in the dead letters")
	err := b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		if err := tx.Bury(&store.DeadLetter{
			Kind: letterOutbox, Lane: row.Lane, Key: row.TxnID, Op: row.Op, Cause: cause.Error(), Attempts: row.Attempts + 1,
			From: row.ID, Doubt: !isPermanent(cause) && !isRefusal(cause), Body: row.Payload,
		}); err != nil {
			return err
		}
		return tx.OutgoingDone(row.ID)
	})
	if err != nil {
		return err
	}
	switch p := b.portals.room(o.Room); {
	case o.Op == opMessage && o.User != nil && o.Type != event.EventReaction.Type:
		b.tellNetwork(o, cause)
	case o.Op == opState && p != nil:
		p.setTopic("") // so that the next time the network says what it is, it is tried again
		b.warnRoom(p, "I may not set this room's "+strings.TrimPrefix(o.Type, "m.room.")+". Give me a higher power level in it (50, unless the room asks for more).")
	}
	return nil
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
