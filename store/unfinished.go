package store

import (
	"context"
	"time"
)

type Store struct{}
type Tx struct{}

// Epoch counts the processes that have held the store.
type Epoch int64

func Open(ctx context.Context, uri string, opts Options) (*Store, error) { return nil, ErrClosed }
func (s *Store) Close() error                                            { return nil }
func (s *Store) Epoch() Epoch                                            { return 0 }
func (s *Store) Commit(ctx context.Context, epoch Epoch, job func(tx *Tx) error) error {
	return ErrClosed
}
func (s *Store) Prune(ctx context.Context) error                                { return ErrClosed }
func (tx *Tx) AfterCommit(fn func())                                            {}
func (tx *Tx) Ingest(t *Transaction) ([]LaneRefs, error)                        { return nil, ErrClosed }
func (s *Store) Backlog(ctx context.Context, fn func(LaneRefs) error) error     { return ErrClosed }
func (s *Store) Element(ctx context.Context, ref Ref) (Element, error)          { return Element{}, ErrClosed }
func (tx *Tx) Doubt(lane string, ref Ref) error                                 { return ErrClosed }
func (tx *Tx) Attempt(lane string, ref Ref, cause string, next time.Time) error { return ErrClosed }
func (tx *Tx) Finish(lane string, ref Ref) error                                { return ErrClosed }
func (s *Store) InboxStats(ctx context.Context) (Stats, error)                  { return Stats{}, ErrClosed }
func (tx *Tx) Bury(d *DeadLetter) error                                         { return ErrClosed }
func (s *Store) DeadLetters(ctx context.Context, after int64, limit int) ([]DeadLetter, error) {
	return nil, ErrClosed
}
func (s *Store) DeadLetter(ctx context.Context, id int64) (*DeadLetter, error) { return nil, ErrClosed }
func (tx *Tx) DropDeadLetter(id int64) error                                   { return ErrClosed }
func (tx *Tx) Enqueue(o *Outgoing) (fresh bool, err error)                     { return false, ErrClosed }
func (tx *Tx) OutgoingDoubt(id int64) error                                    { return ErrClosed }
func (tx *Tx) OutgoingAttempt(id int64, cause string, next time.Time) error    { return ErrClosed }
func (tx *Tx) OutgoingDone(id int64) error                                     { return ErrClosed }
func (s *Store) OutgoingBacklog(ctx context.Context, fn func(lane string, id int64) error) error {
	return ErrClosed
}
func (s *Store) Outgoing(ctx context.Context, id int64) (*Outgoing, error) { return nil, ErrClosed }
func (tx *Tx) PutMessage(m *Message) error                                 { return ErrClosed }
func (s *Store) MessagesByRemote(ctx context.Context, channel, remoteID string) ([]Message, error) {
	return nil, ErrClosed
}
func (s *Store) MessagesByEvent(ctx context.Context, event string) ([]Message, error) {
	return nil, ErrClosed
}
func (tx *Tx) SetEncrypted(room string, encrypted bool) error { return ErrClosed }
func (s *Store) Encrypted(ctx context.Context, room string) (encrypted, known bool, err error) {
	return false, false, ErrClosed
}
func (tx *Tx) SetNoticed(room, what string) (fresh bool, err error)            { return false, ErrClosed }
func (tx *Tx) SetMember(room, user, membership string) error                   { return ErrClosed }
func (s *Store) Member(ctx context.Context, room, user string) (string, error) { return "", ErrClosed }
func (s *Store) Members(ctx context.Context, room string) (map[string]string, error) {
	return nil, ErrClosed
}
func (s *Store) Ghost(ctx context.Context, userID string) (*Ghost, error) { return nil, ErrClosed }
func (tx *Tx) PutGhost(g *Ghost) error                                    { return ErrClosed }
func (s *Store) Ghosts(ctx context.Context, fn func(*Ghost) error) error  { return ErrClosed }
func (tx *Tx) PutPortal(p *Portal) error                                  { return ErrClosed }
func (tx *Tx) DeletePortal(channel string) error                          { return ErrClosed }
func (s *Store) Portals(ctx context.Context) ([]Portal, error)            { return nil, ErrClosed }
func (s *Store) Setting(ctx context.Context, key string) ([]byte, error)  { return nil, ErrClosed }
func (tx *Tx) PutSetting(key string, value []byte) error                  { return ErrClosed }
func (s *Store) MediaKeys(ctx context.Context) ([]MediaKey, error)        { return nil, ErrClosed }
func (tx *Tx) AddMediaKey(k *MediaKey) error                              { return ErrClosed }
func (tx *Tx) RetireMediaKey(id uint8) error                              { return ErrClosed }
func (tx *Tx) AddMedia(m *Media) error                                    { return ErrClosed }
func (s *Store) Media(ctx context.Context, id int64) (*Media, error)      { return nil, ErrClosed }
func (tx *Tx) RevokeMedia(room, event string) (n int64, err error)        { return 0, ErrClosed }
