package ircd

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircreader"
)

// client is one link. Everything but conn is guarded by the server's lock.
type client struct {
	server *Server
	conn   net.Conn
	since  time.Time

	nick, user, realname, host string
	account                    string
	password                   string
	away                       string
	invisible                  bool
	caps                       map[string]bool
	negotiating                bool // between CAP LS or REQ and CAP END
	sasl                       []byte
	inSASL                     bool
	registered                 bool
	gone                       bool
	hold                       bool
	held                       []string
	monitored                  map[string]string // folded nick to the spelling asked for
	level                      float64           // of the flood bucket,
	leveled                    time.Time         // at this time
	spoke                      time.Time

	nicks map[string]bool // folded, all that it ever had
	lines []string        // received

	label     string // of the command being run
	responses []ircmsg.Message
	labeling  bool

	queue   []byte
	writing bool
	closing bool // close the link when the queue is written
}

const keptLines = 2000

func newClient(s *Server, conn net.Conn) *client {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil || host == "" {
		host = "localhost"
	}
	if host[0] == ':' {
		host = "0" + host // a parameter must not start with a colon
	}
	now := time.Now()
	return &client{
		server: s, conn: conn, since: now, spoke: now, host: host,
		caps: map[string]bool{}, nicks: map[string]bool{}, monitored: map[string]string{},
	}
}

// read runs until the link ends.
func (c *client) read() {
	s := c.server
	var reader ircreader.Reader
	reader.Initialize(c.conn, 512, ircmsg.MaxlenTags+s.opts.LineLen)
	asked := false
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(s.opts.PingInterval))
		line, err := reader.ReadLine()
		if errors.Is(err, os.ErrDeadlineExceeded) && !asked {
			asked = true
			s.mu.Lock()
			c.write(ircmsg.MakeMessage(nil, "", "PING", s.opts.Name))
			s.mu.Unlock()
			continue
		}
		if err != nil {
			s.mu.Lock()
			reason := "Connection closed"
			if errors.Is(err, os.ErrDeadlineExceeded) {
				reason = "Ping timeout"
			}
			c.quit(reason)
			s.forget(c)
			s.mu.Unlock()
			_ = c.conn.Close()
			return
		}
		asked = false
		s.mu.Lock()
		c.take(string(line))
		s.mu.Unlock()
	}
}

// take logs a line and runs it, unless the client is held or floods.
func (c *client) take(line string) {
	if c.gone {
		return
	}
	if len(c.lines) >= keptLines {
		c.lines = c.lines[keptLines/10:]
	}
	c.lines = append(c.lines, line)
	if c.floods() {
		c.close("Excess Flood")
		return
	}
	if c.hold {
		if len(c.held) < keptLines {
			c.held = append(c.held, line)
		}
		return
	}
	c.run(line)
}

// floods counts a line into the bucket and reports whether it is over.
func (c *client) floods() bool {
	flood := c.server.opts.Flood
	if flood.Burst <= 0 || !c.registered {
		return false
	}
	now := time.Now()
	if flood.Interval > 0 {
		c.level = max(0, c.level-float64(now.Sub(c.leveled))/float64(flood.Interval))
	}
	c.leveled = now
	c.level++
	return c.level > float64(flood.Burst)
}

// enqueue adds bytes to what waits for the client, and never waits itself.
func (c *client) enqueue(data []byte) {
	if c.closing {
		return
	}
	c.queue = append(c.queue, data...)
	if len(c.queue) > c.server.opts.SendQueue {
		c.quit("SendQ exceeded")
		_ = c.conn.Close()
		return
	}
	c.startWriting()
}

func (c *client) startWriting() {
	if !c.writing {
		c.writing = true
		c.server.running.Go(c.drain)
	}
}

// drain writes until nothing is left.
func (c *client) drain() {
	s := c.server
	for {
		s.mu.Lock()
		data := c.queue
		c.queue = nil
		if len(data) == 0 {
			c.writing = false
			closing := c.closing
			s.mu.Unlock()
			if closing {
				_ = c.conn.Close()
			}
			return
		}
		s.mu.Unlock()
		_ = c.conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.conn.Write(data); err != nil {
			_ = c.conn.Close() // the reader sees it and ends the client
		}
	}
}

// close tells the client why, ends it, and closes the link once that is written.
func (c *client) close(reason string) {
	c.flushLabel()
	c.write(ircmsg.MakeMessage(nil, "", "ERROR", "Closing Link: "+c.host+" ("+reason+")"))
	c.quit(reason)
	c.closing = true
	c.startWriting()
}

// quit takes the client out of everything, and tells those who shared a channel with it.
func (c *client) quit(reason string) {
	s := c.server
	if c.gone {
		return
	}
	c.gone = true
	if c.registered {
		message := c.event("QUIT", reason)
		for other := range s.neighbours(c) {
			other.deliver(message)
		}
	}
	for _, ch := range s.channels {
		s.remove(ch, c)
	}
	if c.nick != "" && s.clients[s.mapping.Fold(c.nick)] == c {
		delete(s.clients, s.mapping.Fold(c.nick))
		if c.registered {
			s.tellMonitors(c.nick, false)
		}
	}
}

// forget is the end of the link's reader.
func (s *Server) forget(c *client) {
	delete(s.links, c)
	if len(s.past) >= 64 {
		s.past = s.past[1:]
	}
	s.past = append(s.past, c)
}

func (c *client) prefix() string { return c.nick + "!" + c.user + "@" + c.host }

func (c *client) name() string {
	if c.nick == "" {
		return "*"
	}
	return c.nick
}
