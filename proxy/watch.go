package proxy

import (
	"context"
	"time"

	"github.com/trestle-bridge/trestle/store"
)

const (
	// watchEvery is how often a server looks for what other processes did: keys that came or went, links that were revoked. Whatever it learns so
	// holds within a second on every replica. A link is besides looked up at each request, and a stream under way looks by itself.
	watchEvery = time.Second / 2

	// lateFor is how long a revocation may take from getting its number to being seen: until then numbers below the highest are looked for too.
	lateFor = 10 * time.Second

	maxAwaiting = 32
)

// stream is an answer being sent, to be cut when its link is revoked.
type stream struct {
	link   store.Media
	cancel context.CancelCauseFunc
}

// follow lets the watcher cut an answer. end must be called before the request is over.
func (s *Server) follow(ctx context.Context, x *exchange, t *target) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.liveMu.Lock()
	s.live[x] = &stream{t.link, cancel}
	s.liveMu.Unlock()
	if s.cuts.Load() != x.cuts { // what was carried out since the link was looked up may have been meant for it
		if revoked, err := t.revoked(ctx); err == nil && revoked {
			cancel(errRevoked)
		}
	}
	return ctx, func() {
		s.liveMu.Lock()
		delete(s.live, x)
		s.liveMu.Unlock()
		cancel(nil)
	}
}

// cut ends the answers that a revocation covers, also those that wait for a reader or for the homeserver.
func (s *Server) cut(r *store.MediaRevocation) {
	s.liveMu.Lock()
	defer s.liveMu.Unlock()
	s.cuts.Add(1)
	for x, st := range s.live {
		if r.Covers(&st.link) {
			st.cancel(errRevoked)
			_ = x.control.SetWriteDeadline(time.Unix(1, 0)) // send and sendFile look at ctx after they have set their own
		}
	}
}

func (s *Server) startWatching() {
	s.watching, s.stopWatching = context.WithCancel(context.Background())
	if s.links == nil && s.keys.source == nil && !s.cache.keep {
		return
	}
	// What was revoked while no process ran may be in the cache.
	seen := revocationCursor{since: s.now().Add(-s.cache.age)}
	s.watcher.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		wrong := false
		for {
			err := s.keys.Reload(s.watching)
			if err == nil && s.links != nil {
				err = s.obey(s.watching, &seen)
			}
			s.memo.forget()
			s.cache.sweep()
			if s.watching.Err() != nil {
				return
			}
			if err != nil && !wrong {
				s.log.Error().Err(err).Msg("Cannot look for keys and revocations of media links; new requests are refused where they need to be looked up")
			}
			wrong = err != nil
			select {
			case <-tick.C:
			case <-s.watching.Done():
				return
			}
		}
	})
}

// revocationCursor is how far the revocations were read: the highest number that is old enough for those below it to be all there.
type revocationCursor struct {
	since time.Time
	after int64
	done  map[int64]time.Time // those above it, each with when it was first seen
}

// obey carries out what was revoked since the last time.
func (s *Server) obey(ctx context.Context, c *revocationCursor) error {
	for {
		found, err := s.links.MediaRevocations(ctx, c.after, c.since)
		if err != nil {
			return err
		}
		fresh := 0
		for i := range found {
			r := &found[i]
			if _, ok := c.done[r.ID]; ok {
				continue
			}
			s.cut(r)
			if err := s.purge(ctx, r); err != nil {
				return err
			}
			if c.done == nil {
				c.done = make(map[int64]time.Time)
			}
			c.done[r.ID] = time.Now()
			fresh++
		}
		full := len(found) == 1000
		c.advance(full)
		if !full || fresh == 0 {
			return nil
		}
	}
}

// advance forgets what was seen long enough ago; hurry, when a page was full, at once.
func (c *revocationCursor) advance(hurry bool) {
	for id, at := range c.done {
		if hurry || time.Since(at) > lateFor {
			c.after = max(c.after, id)
		}
	}
	for id := range c.done {
		if id <= c.after {
			delete(c.done, id)
		}
	}
}

// purge deletes from the cache what the revoked links led to.
func (s *Server) purge(ctx context.Context, r *store.MediaRevocation) error {
	if !s.cache.keep || s.cache.isEmpty() {
		return nil
	}
	if r.MediaScope == (store.MediaScope{}) {
		s.cache.discardAll("revoked")
		return nil
	}
	if r.Server != "" && r.MediaScope.Media != "" {
		// Links without a record lead there too.
		s.discard(&store.Media{Server: r.Server, MediaID: r.MediaScope.Media}, "revoked")
	}
	for after := int64(0); ; {
		links, err := s.links.MediaLinks(ctx, r.MediaScope, after, 1000)
		if err != nil {
			return err
		}
		for _, m := range links {
			if after = m.ID; r.Covers(&m) {
				s.discard(&m, "revoked")
			}
		}
		if len(links) < 1000 {
			return nil
		}
	}
}

// awaitKey gives a link whose key is not known a chance: another process may have made both within the last half second. It asks nobody, and
// waits for the reading that comes anyway.
func (s *Server) awaitKey(ctx context.Context, id uint8) {
	if s.keys.source == nil || s.watching.Err() != nil {
		return
	}
	defer s.awaiting.Add(-1)
	if s.awaiting.Add(1) > maxAwaiting {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*watchEvery)
	defer cancel()
	defer context.AfterFunc(s.watching, cancel)()
	s.keys.learn(ctx, id)
}
