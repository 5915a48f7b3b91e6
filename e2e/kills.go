package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bench/soak"
)

// mortalSynapse is a Synapse that package soak kills.
type mortalSynapse struct {
	tb      testing.TB
	port    int
	synapse *Synapse
	token   string
}

func newMortalSynapse(tb testing.TB) *mortalSynapse {
	return &mortalSynapse{tb: tb, port: FreePort(tb)}
}

func (m *mortalSynapse) URL() string    { return "http://" + loopback(m.port) }
func (m *mortalSynapse) Domain() string { return DefaultDomain }

func (m *mortalSynapse) Register(registration string) (err error) {
	m.token, err = tokenOf(registration)
	if err == nil {
		m.synapse = StartSynapse(m.tb, SynapseOptions{Port: m.port, Registrations: []string{registration}})
	}
	return err
}

func (m *mortalSynapse) Person(name string) (soak.Person, error) {
	return &matrixPerson{m.synapse.login(name, false)}, nil
}

func (m *mortalSynapse) Restart(meanwhile func()) {
	m.synapse.Kill()
	meanwhile()
	m.synapse.Start()
}

// Waiting: Synapse does not tell. What waits there has come when what was written last has.
func (m *mortalSynapse) Waiting() string { return "" }

func (m *mortalSynapse) Devices(_ context.Context, user id.UserID) (int, error) {
	var answer struct {
		Devices []struct{} `json:"devices"`
	}
	m.synapse.GetAs(m.token, user, "/_matrix/client/v3/devices", &answer)
	return len(answer.Devices), nil
}

// matrixPerson does what package soak wants done.
type matrixPerson struct{ client *mautrix.Client }

func (p *matrixPerson) CreateRoom(ctx context.Context, invite id.UserID) (id.RoomID, error) {
	resp, err := p.client.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "public_chat", Invite: []id.UserID{invite}})
	if err != nil {
		return "", err
	}
	return resp.RoomID, nil
}

func (p *matrixPerson) Join(ctx context.Context, room id.RoomID) error {
	_, err := p.client.JoinRoomByID(ctx, room)
	return err
}

func (p *matrixPerson) Leave(ctx context.Context, room id.RoomID) error {
	_, err := p.client.LeaveRoom(ctx, room)
	return err
}

func (p *matrixPerson) Send(ctx context.Context, room id.RoomID, kind string, content any) (id.EventID, error) {
	resp, err := p.client.SendMessageEvent(ctx, room, event.NewEventType(kind), content)
	if err != nil {
		return "", err
	}
	return resp.EventID, nil
}

func (p *matrixPerson) message(ctx context.Context, room id.RoomID, content map[string]any) (id.EventID, error) {
	return p.Send(ctx, room, event.EventMessage.Type, content)
}

func (p *matrixPerson) SendText(ctx context.Context, room id.RoomID, text string) (id.EventID, error) {
	return p.message(ctx, room, map[string]any{"msgtype": "m.text", "body": text})
}

func (p *matrixPerson) SendReply(ctx context.Context, room id.RoomID, to id.EventID, text string) (id.EventID, error) {
	return p.message(ctx, room, map[string]any{
		"msgtype": "m.text", "body": text, "m.relates_to": map[string]any{"m.in_reply_to": map[string]any{"event_id": to}},
	})
}

func (p *matrixPerson) SendEdit(ctx context.Context, room id.RoomID, edited id.EventID, text string) (id.EventID, error) {
	return p.message(ctx, room, map[string]any{
		"msgtype": "m.text", "body": "* " + text, "m.new_content": map[string]any{"msgtype": "m.text", "body": text},
		"m.relates_to": map[string]any{"rel_type": "m.replace", "event_id": edited},
	})
}

func (p *matrixPerson) SendImage(ctx context.Context, room id.RoomID, name, mime string, data []byte) (id.EventID, error) {
	uploaded, err := p.client.UploadBytesWithName(ctx, data, mime, name)
	if err != nil {
		return "", err
	}
	return p.message(ctx, room, map[string]any{
		"msgtype": "m.image", "body": name, "url": uploaded.ContentURI.String(), "info": map[string]any{"mimetype": mime, "size": len(data)},
	})
}

func (p *matrixPerson) Redact(ctx context.Context, room id.RoomID, event id.EventID) (id.EventID, error) {
	resp, err := p.client.RedactEvent(ctx, room, event)
	if err != nil {
		return "", err
	}
	return resp.EventID, nil
}

func (p *matrixPerson) Sees(ctx context.Context, room id.RoomID, text string) error {
	for {
		resp, err := p.client.Messages(ctx, room, "", "", mautrix.DirectionBackward, nil, 100)
		if err != nil {
			return err
		}
		for _, ev := range resp.Chunk {
			if ev.Content.Raw["body"] == text {
				return nil
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting until %q is in %s: %w", text, room, ctx.Err())
		}
	}
}

func (p *matrixPerson) Timeline(ctx context.Context, room id.RoomID) (events []soak.Event, err error) {
	for from := ""; ; {
		resp, err := p.client.Messages(ctx, room, from, "", mautrix.DirectionForward, nil, 1000)
		if err != nil {
			return nil, err
		}
		for _, ev := range resp.Chunk {
			events = append(events, soak.Event{ID: ev.ID, Type: ev.Type.Type, Sender: ev.Sender, Content: ev.Content.Raw})
		}
		if from = resp.End; from == "" {
			return events, nil
		}
	}
}

func (p *matrixPerson) Members(ctx context.Context, room id.RoomID) (map[id.UserID]string, error) {
	resp, err := p.client.Members(ctx, room)
	if err != nil {
		return nil, err
	}
	members := map[id.UserID]string{}
	for _, ev := range resp.Chunk {
		members[id.UserID(ev.GetStateKey())], _ = ev.Content.Raw["membership"].(string)
	}
	return members, nil
}

// peopledIRC is an IRC server with people of package soak on it. Each line of theirs is followed by a PING, whose answer says that
// the server has dealt with the line.
type peopledIRC struct {
	server  *IRCServer
	running sync.WaitGroup
	people  map[string]*ircPerson // on the test's goroutine
}

type ircPerson struct {
	conn  net.Conn
	lines chan string // closed when the connection has ended
}

func newPeopledIRC(tb testing.TB, server *IRCServer) *peopledIRC {
	s := &peopledIRC{server: server, people: map[string]*ircPerson{}}
	tb.Cleanup(func() {
		for _, person := range s.people {
			person.conn.Close()
		}
		s.running.Wait()
	})
	return s
}

// endPatience is how long an IRC server may take to answer the end of a connection.
const endPatience = 5 * time.Second

// Serve passes bytes on both ways. When the bridge is gone the server reads the end, and closes its side in answer. InspIRCd now and then does
// not notice it before it looks again, after minutes: then the connection breaks off, when what came before has been read for long.
func (s *peopledIRC) Serve(bridge net.Conn) {
	server, err := net.Dial("tcp", s.server.Address)
	if err != nil {
		bridge.Close()
		return
	}
	s.running.Go(func() {
		_, _ = io.Copy(server, bridge)
		_ = server.(*net.TCPConn).CloseWrite()
		_ = server.SetReadDeadline(time.Now().Add(endPatience))
	})
	s.running.Go(func() {
		_, _ = io.Copy(bridge, server)
		_, err := io.Copy(io.Discard, server) // the bridge may be gone before the server
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = server.(*net.TCPConn).SetLinger(0)
		}
		server.Close()
		bridge.Close()
	})
}

func (s *peopledIRC) Enter(ctx context.Context, nick string, channels []string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.server.Address)
	if err != nil {
		return err
	}
	p := &ircPerson{conn: conn, lines: make(chan string, 10000)}
	s.people[nick] = p
	s.running.Go(func() {
		defer close(p.lines)
		defer conn.Close()
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			text := lines.Text()
			if token, ok := strings.CutPrefix(text, "PING "); ok {
				fmt.Fprintf(conn, "PONG %s\r\n", token)
				continue
			}
			// What others say is of no interest.
			if _, text, ok := strings.Cut(text, " "); ok && !strings.HasPrefix(text, "PRIVMSG ") {
				p.lines <- text
			}
		}
	})
	if _, err := fmt.Fprintf(conn, "NICK %s\r\nUSER %[1]s 0 * :%[1]s\r\n", nick); err != nil {
		return err
	}
	if err := s.answered(nick, "001 "); err != nil {
		return err
	}
	return s.does(nick, "JOIN "+strings.Join(channels, ","))
}

// does sends a line, and returns when the server has dealt with it.
func (s *peopledIRC) does(nick, line string) error {
	person := s.people[nick]
	if person == nil {
		return fmt.Errorf("%s is not on IRC", nick)
	}
	if _, err := fmt.Fprintf(person.conn, "%s\r\nPING done\r\n", line); err != nil {
		return fmt.Errorf("%s on IRC: %w", nick, err)
	}
	return s.answered(nick, "PONG ")
}

// answered waits for a line that begins so, after the server's name.
func (s *peopledIRC) answered(nick, with string) error {
	_, err := s.collect(nick, "", with)
	return err
}

// collect gives the lines that begin with what, up to one that begins with end.
func (s *peopledIRC) collect(nick, what, end string) (found []string, err error) {
	timeout := time.After(patience)
	for {
		select {
		case text, ok := <-s.people[nick].lines:
			switch {
			case !ok:
				return nil, fmt.Errorf("%s has lost the connection", nick)
			case strings.HasPrefix(text, end):
				return found, nil
			case what != "" && strings.HasPrefix(text, what):
				found = append(found, text)
			}
		case <-timeout:
			return nil, fmt.Errorf("%s waited for %q", nick, end)
		}
	}
}

func (s *peopledIRC) Say(nick, channel, text string) error {
	return s.does(nick, "PRIVMSG "+channel+" :"+text)
}

func (s *peopledIRC) Quit(nick string) error {
	person := s.people[nick]
	if person == nil {
		return fmt.Errorf("%s is not on IRC", nick)
	}
	delete(s.people, nick)
	if _, err := fmt.Fprint(person.conn, "QUIT :enough\r\n"); err != nil {
		return err
	}
	for range person.lines { // until the server has closed the connection
	}
	return nil
}

func (s *peopledIRC) Members(_ context.Context, channel string) (members []string, err error) {
	for nick, person := range s.people {
		if _, err := fmt.Fprintf(person.conn, "NAMES %s\r\n", channel); err != nil {
			return nil, err
		}
		lines, err := s.collect(nick, "353 ", "366 ")
		if err != nil {
			return nil, err
		}
		for _, line := range lines {
			_, names, _ := strings.Cut(line, " :")
			for _, name := range strings.Fields(names) {
				members = append(members, strings.TrimLeft(name, "@+"))
			}
		}
		if members != nil {
			return members, nil
		}
	}
	return nil, fmt.Errorf("nobody is in %s to look around", channel)
}
