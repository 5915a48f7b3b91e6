package irc

import (
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
)

// handlers says who handles what, and how many parameters it must have. What is not listed, and no numeric of refusal, is
// of no concern to us.
var handlers map[string]struct {
	params int
	run    func(*link, *ircmsg.Message)
}

func init() {
	handlers = map[string]struct {
		params int
		run    func(*link, *ircmsg.Message)
	}{
		"CAP":          {2, (*link).handleCap},
		"AUTHENTICATE": {1, (*link).handleAuthenticate},
		"PING":         {0, (*link).handlePing},
		"PONG":         {1, (*link).handlePong},
		"ERROR":        {0, (*link).handleError},
		"ACK":          {0, (*link).handleAck},
		"BATCH":        {1, (*link).handleBatch},
		"FAIL":         {2, (*link).handleFail},
		"CHGHOST":      {2, (*link).handleChangedHost},

		"PRIVMSG": {2, (*link).handleMessage},
		"NOTICE":  {2, (*link).handleMessage},
		"TAGMSG":  {1, (*link).handleTagmsg},
		"REDACT":  {2, (*link).handleRedact},
		"JOIN":    {1, (*link).handleJoin},
		"PART":    {1, (*link).handlePart},
		"KICK":    {2, (*link).handleKick},
		"QUIT":    {0, (*link).handleQuit},
		"NICK":    {1, (*link).handleNick},
		"TOPIC":   {2, (*link).handleTopic},

		"001": {1, (*link).handleWelcome},
		"005": {2, (*link).handleISupport},
		"302": {2, (*link).handleUserhost},
		"331": {2, (*link).handleTopicIs},
		"332": {3, (*link).handleTopicIs},
		"353": {4, (*link).handleNames},
		"366": {2, (*link).handleNamesEnd},
		"376": {0, (*link).handleMOTD},
		"396": {2, (*link).handleHostHidden},
		"422": {0, (*link).handleMOTD},
		"432": {1, (*link).handleNickRefused},
		"433": {1, (*link).handleNickRefused},
		"437": {1, (*link).handleNickRefused},
		"464": {0, (*link).handleBadPassword},
		"465": {1, (*link).handleBanned},
		"731": {2, (*link).handleOffline},
		"903": {0, (*link).handleLoggedIn},
		"902": {1, (*link).handleLoginFailed},
		"904": {1, (*link).handleLoginFailed},
		"905": {1, (*link).handleLoginFailed},
		"906": {1, (*link).handleLoginFailed},
		"908": {1, (*link).handleLoginFailed},
	}
}

func (l *link) handle(m *ircmsg.Message) {
	h, ok := handlers[m.Command]
	switch {
	case ok && len(m.Params) >= h.params && l.ofOurs(m):
	case ok && len(m.Params) >= h.params:
		h.run(l, m)
	case !ok && len(m.Command) == 3 && strings.IndexByte("459", m.Command[0]) >= 0:
		l.handleNumeric(m)
	}
}

func (l *link) handlePing(m *ircmsg.Message) {
	params := m.Params
	if len(params) > 1 {
		params = params[:1]
	}
	if data, err := encode(nil, l.support.lineLen, "PONG", params...); err == nil {
		l.queue.hurry(data)
	}
}

func (l *link) handlePong(m *ircmsg.Message) {
	if token := m.Params[len(m.Params)-1]; strings.HasPrefix(token, fencePrefix) {
		l.queue.byFence(token)
	}
}

func (l *link) handleISupport(m *ircmsg.Message) {
	l.support.take(m.Params[1:])
	if l.ready {
		l.session.rekey(l.support.mapping)
	}
}

// label is the label of the command that a message answers: its own, or its batch's.
func (l *link) label(m *ircmsg.Message) string {
	if present, label := m.GetTag("label"); present {
		return label
	}
	if present, batch := m.GetTag("batch"); present {
		return l.batches[batch]
	}
	return ""
}

// handleBatch keeps the labels of batches. What is in a batch (netsplit, netjoin, labeled-response) is handled as it comes.
func (l *link) handleBatch(m *ircmsg.Message) {
	reference := m.Params[0]
	if l.historyBatch(m, reference) {
		return
	}
	switch {
	case strings.HasPrefix(reference, "-"):
		delete(l.batches, reference[1:])
	case strings.HasPrefix(reference, "+"):
		if label := l.label(m); label != "" && len(l.batches) < 100 {
			l.batches[reference[1:]] = label
		}
	}
}

// handleAck says that a labelled command was carried out and led to nothing to tell.
func (l *link) handleAck(m *ircmsg.Message) { l.queue.byLabel(l.label(m), "", nil) }
