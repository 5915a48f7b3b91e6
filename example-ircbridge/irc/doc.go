// Package irc is the IRC network of the bridge: a client in relay mode, in which one bot speaks for everybody on Matrix but those who have a connection of
// their own.
//
// [NewNetwork] is all that a program needs:
//
//	func main() { bridge.Main(irc.NewNetwork("1.0.0")) }
//
// # What a message becomes
//
//	text      <Alice> hello
//	emote     * Alice waves          (no ACTION: that would say that the bot waves)
//	notice    <Alice> hello          as a NOTICE
//	reply     <Alice> bob: hello     and the tags +reply and +draft/reply, where the network has them
//	file      <Alice> photo.jpg (1.2 MB, 1600×1200): https://bridge.example/m/…/photo.jpg — the caption
//
// Lines are cut between graphemes to what the network relays whole, given the prefix that others see, and each piece has
// the name before it. Beyond Config.MaxLines the message is cut, and says how much is missing.
//
// A redaction is a REDACT, and a reaction a TAGMSG with +draft/react or +draft/unreact, both ways, where the network has them.
//
// # What is promised
//
// Send returns when the network has the message. Where it offers labeled-response and echo-message, that is when the echo
// comes back; elsewhere a PING sent after the line comes back as a PONG, which shows that the server has acted on all
// before it. When the link is lost between the two, nobody knows, and the error says so (bridge.InDoubt); what happens
// then is `delivery:` in the configuration.
//
// While there is no link, or the session is not in the channel, Send says so at once (bridge.ErrOffline), and Sink.Online
// says when that is over. SendMarked has a message marked when it has its place in the bucket against flooding, and not
// before: what still waits there has not left, whatever happens.
//
// # Several sessions in one channel
//
// Each line of a channel is delivered once, by the session that shows it first, and in order (watch.go): what the others show is compared with that. What was
// said while none was there is fetched from the network's history, where there is one, and else lost. What a session reads that comes, and in whose list none of the
// others is who are there, is held for half a minute: they may not be listed, or be on another side of a split. Two servers of a network that are split show each
// other's people nothing: what only one side has seen is delivered once at most, perhaps later than what was said after it. Where the network hides JOINs and
// gives no IDs, lines may be doubled when one session goes before the other was shown. A channel that the relay was kicked from is received by nobody.
//
// # Goroutines
//
// For all sessions of a network, one that delivers to the Sink, in order. For each session: one that connects, and while connected is the only reader of the
// link; and one that writes, which lives only while something waits to be written. The reader runs the handlers under
// the session's lock and never waits for the writer; it does wait for the deliverer when 256 events wait for it, so that
// TCP holds the network back. A message is marked on the goroutine that sends it: the writer puts the line aside until it
// may go, and answers PINGs meanwhile. A read deadline finds a link that says nothing; a timer for each line under way
// doubts it when no confirmation comes. Other timers, whose functions Close waits for, end a JOIN without an answer, repeat
// one that was refused for a while, and tell of Matrix users who come and go.
package irc
