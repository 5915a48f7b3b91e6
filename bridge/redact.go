package bridge

import (
	"context"
	"fmt"
	"strconv"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// This file takes messages back that their network takes back. A message that waits is cancelled in the commit that takes the
// redaction in. The redaction's own row is there in either case, behind the message in its lane: it redacts what became of a message
// that was just leaving.

func messageKey(p *portal, remoteID string) string {
	return "message\x00" + p.Channel + "\x00" + remoteID
}

func redaction(p *portal, r *Redact) *outgoing {
	return &outgoing{
		Op: opRedact, Room: p.Room, Channel: p.Channel, RemoteID: r.ID, Reason: r.Reason,
		Key: "redact\x00" + p.Channel + "\x00" + r.ID,
	}
}

// cancel deletes the row of a message that nobody can have sent yet.
func (b *Bridge) cancel(tx *store.Tx, o *outgoing) error {
	return tx.CancelOutgoing(string(o.Room), "message\x00"+o.Channel+"\x00"+o.RemoteID, func(row int64) bool {
		if b.unanswered.isHead(row) || b.toMatrix.is(string(o.Room), row) {
			return false
		}
		tx.AfterCommit(func() { b.fresh.take(row) })
		return true
	})
}

// redact carries a redaction out. There is nothing to do when the message never came to Matrix. A ghost that has left the room
// comes in for it and leaves again: that it does is stored first.
func (b *Bridge) redact(ctx context.Context, row *store.Outgoing, o *outgoing) error {
	found, err := b.store.MessagesByRemote(ctx, o.Channel, o.RemoteID)
	if err != nil {
		return fmt.Errorf("looking up the message that is taken back: %w", err)
	}
	if len(found) == 0 {
		return b.awaitsEvent(o.Channel, row)
	}
	if ctx, err = b.keepsWords(ctx, o); err != nil {
		return err
	}
	for _, m := range found {
		actor := b.as.Bot()
		if !m.FromMatrix {
			actor = b.as.Ghost(id.UserID(m.Sender))
			if b.comings.wait(id.RoomID(m.Room), actor.UserID(), row.ID) {
				return errGhostMoves
			}
			if err := b.leavesAgain(ctx, row, o.Channel, m); err != nil {
				return err
			}
		}
		if _, err := actor.Redact(ctx, id.RoomID(m.Room), id.EventID(m.Event), o.Reason, row.TxnID+"-"+strconv.Itoa(m.Part)); err != nil {
			return err
		}
	}
	return nil
}

// leavesAgain has the ghost that has sent a message leave the room after a row, if it has left it before.
func (b *Bridge) leavesAgain(ctx context.Context, row *store.Outgoing, channel string, m store.Message) error {
	membership, err := b.store.Member(ctx, m.Room, m.Sender)
	if err != nil || membership != "leave" {
		return err
	}
	leave := &outgoing{Op: opLeave, Room: id.RoomID(m.Room), Channel: channel, Ghost: id.UserID(m.Sender), Listed: true}
	return b.store.Commit(ctx, b.store.Epoch(), func(tx *store.Tx) error {
		if b.comings.movesAfter(leave.Room, leave.Ghost, row.ID) {
			return nil // it is stored, or has come again
		}
		return b.enqueue(tx, leave)
	})
}
