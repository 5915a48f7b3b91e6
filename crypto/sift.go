//go:build goolm

package crypto

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"maunium.net/go/mautrix/id"
)

// An answer about many users has what the server of each says, and any one may say so much that it does not fit into memory. To refuse such an answer as a whole would keep all
// the others from being written to. So it is gone through byte by byte, and of each user and each server no more is held than may be read of it: about whom too
// much is said, nothing is.

const (
	// mostSentOfUser is how many bytes are held of an answer about a user's devices: several times what is read of them, whose signatures are left out first.
	mostSentOfUser = 8 << 20
	// mostSentOfKeys is the same of one-time keys, for each device that is asked for some and once more: they have some 300, and no more than mostSaid are read.
	mostSentOfKeys = 4 << 10
	// mostOfFailure is how much is held of why a server did not answer.
	mostOfFailure = 1 << 10
)

// mostSentOfServer is how many bytes are held of all users of a server, of whom so many are asked for: twice what is read of them. Where it is more, those of whom it
// says most are left out.
func mostSentOfServer(users int) int { return 2 * mostReadOfServer(users) }

var errTooMuch = errors.New("the homeserver says more than is read")

// sieve is what is held of an answer.
type sieve struct {
	most     map[id.UserID]int // of whom something was asked, and how much is held
	sections map[string]map[id.UserID]json.RawMessage
	failures map[string]json.RawMessage // by server

	tooMuch map[id.UserID]bool // is said of them
	users   map[string][]id.UserID
	ofUser  map[id.UserID]int
	of      map[string]int // of a server
}

// sift reads an answer whose sections have something of each user.
func sift(body io.Reader, most map[id.UserID]int, sections ...string) (*sieve, error) {
	s := &sieve{most: most, sections: map[string]map[id.UserID]json.RawMessage{}, failures: map[string]json.RawMessage{}, tooMuch: map[id.UserID]bool{}, users: map[string][]id.UserID{}, ofUser: map[id.UserID]int{}, of: map[string]int{}}
	for _, section := range sections {
		s.sections[section] = map[id.UserID]json.RawMessage{}
	}
	for user := range most {
		s.users[user.Homeserver()] = append(s.users[user.Homeserver()], user)
	}
	r := spelling{bufio.NewReaderSize(body, 64<<10)}
	err := r.object(func(name string) (err error) {
		section := s.sections[name]
		switch {
		case section == nil && name != "failures" || r.peek() == 'n': // null
			_, err = r.value(0)
			return err
		case section == nil:
			return r.object(func(server string) error {
				raw, err := r.value(mostOfFailure)
				if len(s.users[server]) > 0 {
					if s.failures[server] = raw; raw == nil {
						s.failures[server] = json.RawMessage("{}")
					}
				}
				return err
			})
		}
		return r.object(func(name string) error {
			user := id.UserID(name)
			left := most[user] - s.ofUser[user]
			if most[user] == 0 || s.tooMuch[user] {
				left = 0
			}
			raw, err := r.value(left)
			switch {
			case err != nil || most[user] == 0 || s.tooMuch[user]:
			case raw == nil:
				s.leaveOut(user)
			default:
				section[user] = raw
				s.hold(user, len(raw))
			}
			return err
		})
	})
	if err == nil && r.peek() != 0 {
		err = fmt.Errorf("%w: something comes after its end", errSpelling)
	}
	return s, err // at its end the connection can be used again
}

func (s *sieve) hold(user id.UserID, more int) {
	server := user.Homeserver()
	s.ofUser[user] += more
	s.of[server] += more
	for s.of[server] > mostSentOfServer(len(s.users[server])) {
		longest := user
		for _, other := range s.users[server] {
			if s.ofUser[other] > s.ofUser[longest] {
				longest = other
			}
		}
		s.leaveOut(longest)
	}
}

func (s *sieve) leaveOut(user id.UserID) {
	s.tooMuch[user] = true
	s.of[user.Homeserver()] -= s.ofUser[user]
	s.ofUser[user] = 0
	for _, section := range s.sections {
		delete(section, user)
	}
}

// spelling reads JSON of which not everything is to be held. Whether what it gives is sound is for its reader to find out.
type spelling struct{ r *bufio.Reader }

var errSpelling = errors.New("it is no JSON")

// peek is what comes after white space; zero at the end.
func (s spelling) peek() byte {
	for {
		next, err := s.r.Peek(1)
		if err != nil {
			return 0
		}
		switch next[0] {
		case ' ', '\t', '\r', '\n':
			_, _ = s.r.Discard(1)
		default:
			return next[0]
		}
	}
}

// take takes one of these.
func (s spelling) take(these string) (byte, error) {
	next := s.peek()
	for _, c := range []byte(these) {
		if c == next {
			_, err := s.r.ReadByte()
			return c, err
		}
	}
	if next == 0 {
		if _, err := s.r.ReadByte(); err != nil { // why it is the end
			return 0, unexpected(err)
		}
	}
	return 0, fmt.Errorf("%w: %q instead of one of %s", errSpelling, next, these)
}

// object has each member's value read by member.
func (s spelling) object(member func(name string) error) error {
	if _, err := s.take("{"); err != nil {
		return err
	}
	if s.peek() == '}' {
		_, err := s.take("}")
		return err
	}
	for {
		if s.peek() != '"' {
			_, err := s.take(`"`)
			return err
		}
		raw, err := s.value(6*mostName + 2) // each byte may be written with six
		var name string                     // of what is too long nobody asks
		if err == nil && raw != nil {
			err = json.Unmarshal(raw, &name)
		}
		if err == nil {
			_, err = s.take(":")
		}
		if err == nil {
			err = member(name)
		}
		if err != nil {
			return err
		}
		if end, err := s.take(",}"); err != nil || end == '}' {
			return err
		}
	}
}

// value gives the next value; nil when it has more than so many bytes.
func (s spelling) value(most int) (raw []byte, err error) {
	first, long := s.peek(), false
	depth, inString, escaped := 0, false, false
	for n := 0; ; n++ {
		c, err := s.r.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		if inString {
			inString, escaped = c != '"' || escaped, c == '\\' && !escaped
		} else {
			switch c {
			case '"':
				inString = true
			case '{', '[':
				depth++
			case '}', ']', ',', ':', ' ', '\t', '\r', '\n':
				if depth == 0 { // the end of a number or a word
					if n == 0 {
						return nil, fmt.Errorf("%w: %q instead of a value", errSpelling, c)
					}
					return raw, s.r.UnreadByte()
				}
				if c == '}' || c == ']' {
					depth--
				}
			}
		}
		if long = long || n >= most; long {
			raw = nil
		} else {
			raw = append(raw, c)
		}
		if depth == 0 && !inString && (first == '"' || first == '{' || first == '[') {
			return raw, nil
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
