package bridge

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"
)

// Network is what a bridge author writes: it opens sessions on the remote network.
//
// The life of a Network: [Main] reads the configuration, hands the `network:` section to a Network that is
// [Configurable], opens one Session for every login (at least the relay login, whose ID is [RelayLogin]), and closes each
// on shutdown. Everything beyond Network and Session is a small optional interface that the bridge finds by assertion:
// [Configurable], [ConfigExampler], [ChannelValidator], [LoginMaker], [Checker] and [Directory] on the Network; [DoubtMarker], [DoubtSettler], [ChannelJoiner],
// [TypingSender], [Redacter], [Reacter], [MembershipSender], [TopicSender], [UserFinder] and [Guarantor] on the Session. A network that lacks one degrades in the way that the
// interface's comment states.
//
// An edited message arrives as a new one whose text begins with "* ", as Matrix clients mark edits.
type Network interface {
	// Info describes the network. It must return the same value every time.
	Info() Info
	// Open makes the session of one login. It returns as soon as the session exists; the session connects, and
	// connects again after a loss, by itself. Everything that comes from the network goes to sink, which takes it from
	// now on and until Close has returned. ctx ends after that. An error ends the bridge.
	Open(ctx context.Context, login *Login, sink Sink) (Session, error)
}

// Session is one connection of one login to the remote network. Its methods may be called from several goroutines at
// once. What comes from one room comes in order, one call at a time; a notice of the bridge's own may come beside it.
type Session interface {
	// Send delivers one message and returns once the network has it, as far as the network can tell.
	//
	// An error is transient (nothing left, try again: any plain error), permanent (wrapped by [Permanent]: never try
	// again) or in doubt (wrapped by [InDoubt]: it may have arrived). A session that cannot send at the moment does not
	// wait: it returns an error that wraps [ErrOffline], and calls [Sink.Online] once it can.
	Send(ctx context.Context, msg *Message) (Sent, error)
	// Close says goodbye and waits until every goroutine of the session has ended.
	Close(ctx context.Context) error
}

// RelayLogin is the ID of the login that every bridge has: the one bot that speaks for everybody.
const RelayLogin = "relay"

// Info describes a network.
type Info struct {
	// ID is short, of [a-z0-9]: the default prefix of ghosts, and part of every derived transaction ID.
	ID string
	// Name is the network's name for people: "IRC".
	Name string
	// Command is the word that starts a command in a room: "!irc".
	Command string
	// Version is the bridge's version, as `version` prints it.
	Version string
}

// Login is an account on the remote network that the bridge uses.
type Login struct {
	ID   string          // unique within the bridge
	User id.UserID       // the Matrix user it belongs to; empty for the relay login
	Data json.RawMessage // what the network keeps about it; nil for the relay login
}

// Kind says what a message is.
type Kind string

// The kinds of message. Media kinds carry a [Media].
const (
	KindText    Kind = "text"
	KindEmote   Kind = "emote"
	KindNotice  Kind = "notice"
	KindImage   Kind = "image"
	KindVideo   Kind = "video"
	KindAudio   Kind = "audio"
	KindFile    Kind = "file"
	KindSticker Kind = "sticker"
	KindGallery Kind = "gallery" // several files, on one page
)

// Message is one Matrix message on its way to the network.
type Message struct {
	ID      id.EventID // the same at every attempt
	Channel string     // the remote channel, as the portal has it
	Room    id.RoomID
	Sender  Sender
	Kind    Kind
	Text    string // plain text; of media, the caption, if there is one
	HTML    string // the formatted body (org.matrix.custom.html), or empty
	Media   *Media // for the media kinds
	ReplyTo *Reply // what it answers, or nil
	// TextLink makes a page that anybody can read until the link expires or the message is redacted, with the whole of Text, and returns its link. It is for
	// text that the network has no room for, and makes nothing until it is called; again it returns the same page. An edit of the message changes the page.
	// It is nil where there is no text, or no media proxy.
	TextLink func(ctx context.Context) (url string, err error)

	Time    time.Time
	Attempt int // 0 at the first
}

// PlainText is the message as one piece of text, for a network that has no media: of a file its name, the link to it and
// the caption. It may have several lines.
func (m *Message) PlainText() string {
	if m.Media == nil {
		return m.Text
	}
	return strings.TrimSpace(strings.TrimSpace(m.Media.Name+" "+m.Media.URL) + " " + m.Text)
}

// Sender is a Matrix user.
type Sender struct {
	ID   id.UserID
	Name string // the display name in the room, or the localpart; never empty; as the user chose it, so clean it
}

// Media is a file that a Matrix user sent.
type Media struct {
	Name          string // the file's name, as the sender gave it
	MIME          string
	Size          int64         // bytes; 0 if unknown
	Width, Height int           // pixels; 0 if unknown
	Duration      time.Duration // of sound and film; 0 if unknown
	Voice         bool          // a voice message
	Files         int           // of a gallery: how many; Name is then their number in words, and Size that of all
	URL           string
	// URL is a signed link that anybody can open until it expires or the message is redacted. It is empty when the
	// bridge has no media proxy; the message is then shown without a link.
}

// Reply is the message that another one answers, as the bridge knows it: never taken from the reply's own text.
type Reply struct {
	Event    id.EventID
	RemoteID string // of its first part, or empty when the network never had it
	Name     string // who wrote it: a remote user's name, or a Matrix user's display name; empty when unknown
	Remote   bool   // it was written on the network
}

// Sent says what a message became on the network: one remote ID for each part, in order. A network without message IDs
// returns none.
type Sent struct{ IDs []string }

// RemoteUser is a user of the remote network.
type RemoteUser struct {
	ID   string // stable and unique on the network (on IRC: the nick, casefolded by the network's rules)
	Name string // for people
}

// Incoming is one thing that happened on the network. Exactly one of the pointers is set.
type Incoming struct {
	Channel string
	// ID is the network's ID of the message, which makes a second delivery of it harmless; a network without message
	// IDs leaves it empty, and one is assigned on receipt.
	ID     string
	Sender RemoteUser
	Time   time.Time // when it happened on the network; zero for now

	Text   *Text
	File   *File
	Join   *Join
	Leave  *Leave
	Rename *Rename
	Topic  *Topic
	Redact *Redact
	React  *React
	// Members is the whole list of a channel's users, Sender unset: whoever is missing has left.
	Members *Members
}

// Text is a message: Kind is KindText (also when it is empty), KindEmote or KindNotice.
type Text struct {
	Kind    Kind
	Body    string
	HTML    string // formatted, or empty
	ReplyTo string // remote ID of the message it answers, or empty
}

// File is a file from the network. It is uploaded to the homeserver before Deliver returns.
type File struct {
	Name, MIME    string
	Size          int64 // bytes, or 0 when unknown
	Width, Height int
	Caption       string
	Content       io.Reader
}

// Redact takes a message back: one that waits is not sent any more, one that is on Matrix is redacted. The network's word counts:
// whether Sender may do that was for the network to say. A message of Matrix users needs a bot with the power to redact.
type Redact struct {
	ID     string // of the message, as it was delivered or sent
	Reason string // or empty
}

// React puts a reaction of Sender under a message, or takes it back. Who does so again and again needs IDs that differ, or none.
type React struct {
	To      string // remote ID of the message, as it was delivered or sent
	Key     string // an emoji, as a rule
	Removed bool
}

// Join says that Sender joined the channel.
type Join struct{}

// Leave says that Sender left the channel, was kicked from it, or quit.
type Leave struct {
	Reason string
	By     string // name of whoever kicked, or empty
}

// Rename says that From became Sender.
type Rename struct{ From RemoteUser }

// Topic says that Sender changed the channel's topic, or, with no Sender, what it is.
type Topic struct{ Text string }

// Members is who is in a channel.
type Members struct{ Users []RemoteUser }

// Sink takes what happens on the network.
type Sink interface {
	// Deliver returns when the event is durable: a network with acknowledgements of its own can acknowledge then. Calls
	// for one channel must come in order, one at a time. [ErrNoPortal]: no room is plumbed to the channel, and nothing
	// was kept. Any other error: nothing was kept, deliver it again.
	Deliver(ctx context.Context, in *Incoming) error
	// Since says from when on messages of a channel may not have been taken in: when the newest that was happened, by the network's
	// clock where it gave a time, or when the channel was plumbed. It is for networks that can be asked for what was said; what
	// is delivered again is known by its ID. The zero time: no room is plumbed to the channel.
	Since(ctx context.Context, channel string) (time.Time, error)
	// Typing passes a typing notice on. It is never stored and may be lost.
	Typing(channel string, user RemoteUser, typing bool)
	// Online says that the session can send (again): what waited because of [ErrOffline] is tried at once, and what was
	// warned of before may be warned of again.
	Online()
	// Log is the bridge's log, for what only its operator needs to know.
	Log() *zerolog.Logger
	// Warn shows an operator's problem (cannot join, banned, no connection) in the channel's room, once per distinct
	// text until the channel works again; an empty channel means every room of the session.
	Warn(channel, text string)
}

// LoginMaker is a Network on which Matrix users can have logins of their own, which they make by the command `login` in a room: what they write then leaves
// through the Session of their login, and through the relay's while that is offline. Without it the relay speaks for everybody.
//
// Several Sessions may then see one channel. What comes with the network's ID is taken in once, whichever delivers it; a network without IDs has to have
// one of them deliver what both see. What a login says itself is not to be delivered. The relay's login is opened first and closed last.
type LoginMaker interface {
	// MakeLogin gives what [Login].Data keeps, from what the user wrote after the command, and the logins that there are. The words of its error are for
	// the user.
	MakeLogin(user id.UserID, words []string, there []*Login) (json.RawMessage, error)
}

// Checker is a Network that can try, for the subcommand `check`, whether its part of the configuration works: that the
// server is there and lets the bridge in. Without it, `check` says that this was not tried.
type Checker interface {
	// CheckConnection connects, logs in, and leaves again, all before ctx ends. Its error says what to change.
	CheckConnection(ctx context.Context) error
}

// ChannelJoiner is a Session that must enter a channel before it can speak there. Without it, channels are taken to be
// always there.
type ChannelJoiner interface {
	// JoinChannel makes the session be in the channel from now on, also after every reconnect. It returns when the
	// network has confirmed it, with a permanent error when the network refuses (banned, invite only, bad name).
	JoinChannel(ctx context.Context, channel string) error
	// LeaveChannel is the reverse.
	LeaveChannel(ctx context.Context, channel string) error
}

// ChannelValidator is a Network that knows which names are channels, and how to write them in one way (case). Without it,
// every non-empty name is taken as it is.
type ChannelValidator interface {
	// Channel returns the canonical name, or an error that says what is wrong with it.
	Channel(name string) (string, error)
}

// TypingSender is a Session that can show who is typing. Without it, typing stays on Matrix.
type TypingSender interface {
	SendTyping(ctx context.Context, channel string, users []Sender) error // everybody who types now; empty: nobody
}

// Redacter is a Session that can take a message back. Without it a redaction ends the links to the message's media and cancels what waits, and no more.
type Redacter interface {
	// Redacts says whether the network has that; while nobody knows, true. Where it is false, a redaction costs nothing.
	Redacts() bool
	// SendRedaction takes the parts of a message back. A permanent error is the network's refusal, in words for who redacted; nothing is an error that a network
	// without this returns.
	SendRedaction(ctx context.Context, channel string, parts []string, reason string, by Sender) error
}

// Reacter is a Session that can react to a message. Without it reactions stay on Matrix.
type Reacter interface {
	// Reacts says whether the network has that; while nobody knows, true. Where it is false, a reaction costs nothing.
	Reacts() bool
	// SendReaction puts a reaction under the message, or takes it back. What several users have in common is put once, and taken back with the last of them,
	// for all whom the Session speaks for. A permanent error says that it is not there; it is logged. Keys have 256 bytes at most.
	SendReaction(ctx context.Context, channel string, r *React, by Sender) error
}

// MembershipSender is a Session that can tell of Matrix users who come and go. Without it, that stays on Matrix.
type MembershipSender interface {
	SendMembership(ctx context.Context, m *Membership) error
}

// Membership is a Matrix user's joining or leaving.
type Membership struct {
	Channel string
	User    Sender
	Joined  bool
	Reason  string // of leaving, or empty
}

// TopicSender is a Session that can set a channel's topic. Without it, a notice in the room says that it cannot.
type TopicSender interface {
	// It returns the topic as the network has it, which may be shorter.
	SendTopic(ctx context.Context, channel, topic string, by Sender) (set string, err error)
}

// DoubtMarker is a Session that says itself when a message leaves. Without it, the message is marked as under way before
// Send is called: whatever interrupts Send then leaves it in doubt, even if it was still waiting its turn.
type DoubtMarker interface {
	// SendMarked is [Session.Send], and calls leaving once, just before the first byte leaves. If leaving returns an
	// error, nothing may leave, and SendMarked returns that error.
	SendMarked(ctx context.Context, msg *Message, leaving func(ctx context.Context) error) (Sent, error)
}

// Guarantee says what becomes of a message whose sending was interrupted, so that nobody knows whether it arrived.
type Guarantee int

const (
	// AtMostOnce: it is not sent again; its sender is told.
	AtMostOnce Guarantee = iota
	// AtLeastOnce: it is sent again.
	AtLeastOnce
)

// Guarantor is a Session that says which guarantee it gives. Without it, AtMostOnce.
type Guarantor interface{ Guarantee() Guarantee }

// Configurable is a Network with a section of its own, `network:`, in the configuration file.
type Configurable interface {
	// Config returns a pointer to the structure, with defaults filled in, that the section is decoded into.
	// Unknown keys are mistakes.
	Config() any
	// Validate says everything that is wrong with it, after decoding.
	Validate() []Problem
}

// Problem is one mistake in the `network:` section.
type Problem struct {
	Path string // dotted path below `network:`, list elements by index: "servers.0.address"
	Text string // what is wrong
	Mend string // what to write instead
}
