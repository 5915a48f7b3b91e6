//go:build goolm

package crypto

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// mostLearnt is how many rows about devices are written in one commit: lanes must not wait for the answer about a room of thousands.
const mostLearnt = 512

// answer is what the homeserver says of users' devices, until all of it is heard. Of one user it says several things (devices, cross-signing keys, who has
// signed which), each of which may take the room keys away: all of it is one commit, and the keys go in it once. A long answer is
// several commits, each of all that is said of some users.
type answer struct {
	users []id.UserID // in the order in which they come up
	about map[id.UserID]*aboutUser

	failures map[string]json.RawMessage // by server: those that did not answer
}

// aboutUser is what is said of one user.
type aboutUser struct {
	writes []func(ctx context.Context) error
	last   func(ctx context.Context) error // or nil
	rows   int
}

type answerKey struct{}

// add keeps a write about a user, of so many rows, for [keyStore.learn].
func (a *answer) add(user id.UserID, rows int, write func(ctx context.Context) error) {
	if a.about == nil {
		a.about = map[id.UserID]*aboutUser{}
	}
	u := a.about[user]
	if u == nil {
		u = &aboutUser{}
		a.about[user], a.users = u, append(a.users, user)
	}
	if u.rows += rows; write != nil {
		u.writes = append(u.writes, write)
	}
}

// next takes the users out of the answer whose rows are written in one commit.
func (a *answer) next() (users []id.UserID) {
	for rows := 0; len(a.users) > 0; {
		rows += a.about[a.users[0]].rows
		if len(users) > 0 && rows > mostLearnt {
			break
		}
		users, a.users = append(users, a.users[0]), a.users[1:]
	}
	return users
}

// hear is [keyStore.write] for what a homeserver's answer says of a user: it waits until the answer is heard, if one is being read.
func (s *keyStore) hear(ctx context.Context, user id.UserID, rows int, write func(ctx context.Context) error) error {
	if a, ok := ctx.Value(answerKey{}).(*answer); ok {
		a.add(user, rows, write)
		return nil
	}
	return s.write(ctx, write)
}

// hearLast is hear for what depends on the rest that the answer says of the user.
func (s *keyStore) hearLast(ctx context.Context, user id.UserID, rows int, write func(ctx context.Context) error) error {
	a, ok := ctx.Value(answerKey{}).(*answer)
	if !ok {
		return s.write(ctx, write)
	}
	a.add(user, rows, nil)
	a.about[user].last = write
	return nil
}

// lesson is a commit in which something is learnt of users.
type lesson struct {
	tracked map[id.UserID]bool // who was asked for before
	drop    []string           // whose rooms get new keys
}

type lessonKey struct{}

// learn writes an answer.
func (s *keyStore) learn(ctx context.Context, a *answer) error {
	for users := a.next(); len(users) > 0; users = a.next() {
		err := s.commit(ctx, func(ctx context.Context) error {
			tracked, err := s.FilterTrackedUsers(ctx, users)
			if err != nil {
				return err
			}
			l := &lesson{tracked: map[id.UserID]bool{}}
			for _, user := range tracked {
				l.tracked[user] = true
			}
			ctx = context.WithValue(ctx, lessonKey{}, l)
			for _, user := range users {
				about := a.about[user]
				for _, write := range append(about.writes, about.last) {
					if write == nil {
						continue
					}
					if err := write(ctx); err != nil {
						return err
					}
				}
			}
			return store.TxOf(ctx).DropKeysSharedWith(l.drop...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dropKeysOf drops the keys of all rooms of a user, of all devices of the bridge, in the job that learns why; those of a user for whom nobody had asked were
// given to none of the user's devices.
func (s *keyStore) dropKeysOf(ctx context.Context, user id.UserID) error {
	l, ok := ctx.Value(lessonKey{}).(*lesson)
	if !ok {
		tracked, err := s.FilterTrackedUsers(ctx, []id.UserID{user})
		if err != nil || len(tracked) == 0 {
			return err
		}
		return store.TxOf(ctx).DropKeysSharedWith(string(user))
	}
	if l.tracked[user] {
		l.tracked[user], l.drop = false, append(l.drop, string(user))
	}
	return nil
}
