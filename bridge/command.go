package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
)

// command is something that people can ask of the bot in a room, by writing the network's command word and its name.
type command struct {
	name, args, help string
	// power: the sender needs the power level that the configuration asks for (`bridge.command_power`), or to be one of
	// its admins.
	power bool
	// logins: there is none of it on a network whose users have no logins.
	logins bool
	run    func(b *Bridge, ctx context.Context, call *call) (reply string, effects []appservice.Effect, err error)
}

type call struct {
	room   id.RoomID
	sender id.UserID
	args   []string
	// answers is the event that the command is a reply to, or "".
	answers id.EventID
}

// commands is filled by init, because help lists it.
var commands []command

func init() {
	commands = []command{
		{name: "help", help: "this list", run: (*Bridge).commandHelp},
		{name: "plumb", args: "CHANNEL", help: "connect this room to a channel", power: true, run: (*Bridge).commandPlumb},
		{name: "create", args: "CHANNEL", help: "make a room for a channel, and invite you", power: true, run: (*Bridge).commandCreate},
		{name: "unplumb", help: "disconnect this room from its channel", power: true, run: (*Bridge).commandUnplumb},
		{name: "retry", args: "[NUMBER]", help: "send again what was not delivered: the message that you answer with this, or a dead letter by its number", run: (*Bridge).commandRetry},
		{name: "login", args: "[NAME]", help: "have a connection of your own, under this name, where the bridge's administrator lets you", logins: true, run: (*Bridge).commandLogin},
		{name: "logout", help: "end it: I speak for you again", logins: true, run: (*Bridge).commandLogout},
		{name: "status", help: "what this room is connected to", run: (*Bridge).commandStatus},
	}
}

// parseCommand says whether a message is for the bot, and what it asks. Text that merely begins with the same letters is
// not.
func (b *Bridge) parseCommand(body string) (words []string, ok bool) {
	words = strings.Fields(body)
	if len(words) == 0 || !strings.EqualFold(words[0], b.command) {
		return nil, false
	}
	return words[1:], true
}

// handleCommand runs a command; its answer is an effect like any other. An error is one to try again.
func (b *Bridge) handleCommand(ctx context.Context, ev *appservice.Event, words []string) ([]appservice.Effect, error) {
	name := "help"
	if len(words) > 0 {
		name, words = strings.ToLower(words[0]), words[1:]
	}
	at := slices.IndexFunc(commands, func(c command) bool { return c.name == name && b.has(c) })
	if at < 0 {
		return b.answer(ev, fmt.Sprintf("I know no command %q. %s help lists them.", clip(name), b.command)), nil
	}
	cmd := commands[at]
	if cmd.power {
		allowed, why, err := b.mayCommand(ctx, ev.RoomID, ev.Sender)
		if err != nil {
			return nil, err
		}
		if !allowed {
			return b.answer(ev, why), nil
		}
	}
	reply, effects, err := cmd.run(b, ctx, &call{room: ev.RoomID, sender: ev.Sender, args: words, answers: answeredBy(ev)})
	if err != nil {
		return nil, fmt.Errorf("command %s in %s: %w", name, ev.RoomID, err)
	}
	return append(effects, b.answer(ev, reply)...), nil
}

func (b *Bridge) has(c command) bool {
	_, logins := b.network.(LoginMaker)
	return logins || !c.logins
}

// answeredBy is the event that another one is a reply to, or "".
func answeredBy(ev *appservice.Event) id.EventID {
	decoded, err := ev.Decode()
	if err != nil {
		return ""
	}
	return decoded.Content.AsMessage().RelatesTo.GetReplyTo()
}

// mayCommand goes by the room's power levels as events have told of them, in the order in which commands come.
func (b *Bridge) mayCommand(ctx context.Context, room id.RoomID, user id.UserID) (allowed bool, why string, err error) {
	if slices.Contains(b.cfg.Bridge.Admins, user) {
		return true, "", nil
	}
	levels, err := b.as.Bot().PowerLevels(ctx, room)
	if errors.Is(err, mautrix.MForbidden) {
		return false, "I cannot see this room's power levels.", nil
	}
	if err != nil {
		return false, "", err
	}
	if need, has := b.cfg.Bridge.CommandPower, levels.GetUserLevel(user); has < need {
		return false, fmt.Sprintf("You need power level %d in this room for that; you have %d.", need, has), nil
	}
	return true, "", nil
}

func (b *Bridge) commandHelp(context.Context, *call) (string, []appservice.Effect, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "I connect this room to %s.", b.info.Name)
	for _, c := range commands {
		if b.has(c) {
			fmt.Fprintf(&text, "\n%s – %s", strings.TrimSpace(b.command+" "+c.name+" "+c.args), c.help)
		}
	}
	return text.String(), nil, nil
}

func (b *Bridge) commandStatus(_ context.Context, call *call) (string, []appservice.Effect, error) {
	if p := b.portals.room(call.room); p != nil {
		return fmt.Sprintf("This room is connected to %s on %s.", p.Channel, b.info.Name), nil, nil
	}
	return fmt.Sprintf("This room is connected to nothing. Write: %s plumb CHANNEL", b.command), nil, nil
}

func (b *Bridge) commandPlumb(ctx context.Context, call *call) (string, []appservice.Effect, error) {
	if len(call.args) != 1 {
		return fmt.Sprintf("Write: %s plumb CHANNEL", b.command), nil, nil
	}
	name, err := b.checkPlumb(ctx, call.room, call.args[0])
	if refusal := (*plumbRefusal)(nil); errors.As(err, &refusal) {
		return clip(refusal.text), nil, nil
	} else if err != nil {
		return "", nil, err
	}
	if b.configuredChannel(name) {
		return fmt.Sprintf("The bridge's configuration says what %s is connected to.", name), nil, nil
	}
	// The portal is known from here on, so that what the network says of the channel's members finds it.
	p, fresh, err := b.portals.claim(&portal{Channel: name, Room: call.room, Source: sourceCommand, Created: time.Now()})
	if refusal := (*plumbRefusal)(nil); errors.As(err, &refusal) {
		return clip(refusal.text), nil, nil
	}
	joining, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := b.joinChannel(joining, p); err != nil {
		if fresh {
			b.portals.remove(p)
		}
		switch {
		case ctx.Err() != nil:
			return "", nil, err // the bridge is stopping; the command is carried out at the next start
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrOffline):
			return fmt.Sprintf("I have no answer from %s; try again later.", b.info.Name), nil, nil
		}
		return fmt.Sprintf("%s does not let me into %s: %v.", b.info.Name, name, err), nil, nil
	}
	b.forgetTold()
	return fmt.Sprintf("This room is now connected to %s on %s.", name, b.info.Name), []appservice.Effect{b.plumb(p)}, nil
}

func (b *Bridge) commandUnplumb(ctx context.Context, call *call) (string, []appservice.Effect, error) {
	p := b.portals.room(call.room)
	switch {
	case p == nil:
		return "This room is connected to nothing.", nil, nil
	case p.Source == sourceConfig || b.configuredChannel(p.Channel):
		return "This room is connected by the bridge's configuration; its administrator has to take it out there.", nil, nil
	}
	if err := b.leaveChannel(ctx, p); err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("This room is no longer connected to %s.", p.Channel), b.unplumb(p), nil
}

// maxQuote is in characters: a sentence of ours with a sentence of the network's.
const maxQuote = 400

// clip keeps what somebody wrote, and is quoted back, short and in one line.
func clip(s string) string {
	runes := []rune(stripControl(s))
	if len(runes) > maxQuote {
		return string(runes[:maxQuote]) + "…"
	}
	return string(runes)
}
