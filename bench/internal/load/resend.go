package load

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pauseBetweenTries is short: Synapse starts with a second, and a test would only wait longer.
const pauseBetweenTries = 20 * time.Millisecond

// Resender sends transactions as a homeserver does: the same one, with the same ID and the same body, until it is
// acknowledged, whatever becomes of the appservice meanwhile. Only then comes the next.
type Resender struct {
	// Addr says where the appservice is now.
	Addr func() string
	// Acknowledged is how many events were acknowledged; Sendings how many requests that took, failed ones included.
	Acknowledged, Sendings int

	conn *Conn
}

// Send returns when the transaction is acknowledged. A refusal other than a 5xx is an error: no repetition mends it.
func (s *Resender) Send(ctx context.Context, r *Request) error {
	for {
		err := s.try(r)
		if err == nil {
			s.Acknowledged += r.Events
			return nil
		}
		if status := (*StatusError)(nil); errors.As(err, &status) && status.Status < 500 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, last try: %w", ctx.Err(), err)
		case <-time.After(pauseBetweenTries):
		}
	}
}

func (s *Resender) try(r *Request) error {
	if s.conn == nil {
		conn, err := Dial(s.Addr())
		if err != nil {
			return err
		}
		s.conn = conn
	}
	s.Sendings++
	err := s.conn.Send(r)
	if err != nil {
		s.Close()
	}
	return err
}

// Close closes the connection, if there is one.
func (s *Resender) Close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}
