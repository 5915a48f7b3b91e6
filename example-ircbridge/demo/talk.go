package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircmsg"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// talk is two people, alice on Matrix and bob on IRC, and the room and channel between them.
type talk struct {
	alice *bridgetest.User
	bob   *ircUser
	room  id.RoomID
	bot   id.UserID
	ghost id.UserID // bob, as Matrix sees him
}

func newTalk(ctx context.Context, hs *bridgetest.Homeserver, irc string, b *process) (*talk, error) {
	t := &talk{alice: hs.User("alice"), bot: b.bot, ghost: id.NewUserID("irc_bob", hs.Domain())}
	var err error
	if t.bob, err = joinIRC(ctx, irc, "bob", channel); err != nil {
		return nil, err
	}
	invited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case err := <-b.ended:
			b.ended <- err
			cancel(fmt.Errorf("the bridge ended: %w", err))
		case <-invited.Done():
		}
	}()
	// A trusted chat gives the bot the power to set the topic.
	t.room, err = t.alice.CreateRoom(invited, bridgetest.RoomOptions{
		Preset: "trusted_private_chat", Name: "Trestle", Invite: []id.UserID{b.bot},
	})
	if err != nil {
		return nil, err
	}
	if _, err := t.alice.WaitFor(invited, t.room, bridgetest.Member(b.bot, "join")); err != nil {
		return nil, errors.Join(err, context.Cause(invited))
	}
	return t, nil
}

// conversation is everything that the demo shows; each step fails unless the other side saw it.
func (t *talk) conversation(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		t.plumb, t.textToIRC, t.textToMatrix, t.reply, t.actions, t.typing, t.topic, t.photo, t.leave,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// crossed prints one line of the transcript.
func crossed(side, did, otherSide, saw string) {
	fmt.Printf("  %-6s │ %s%s │ %-6s │ %s\n", side, did, strings.Repeat(" ", max(0, 52-utf8.RuneCountInString(did))), otherSide, saw)
}

func (t *talk) onIRC(m ircmsg.Message) string {
	text := strings.NewReplacer("\x02", "", "\x0f", "", "\x01", "").Replace(m.Params[len(m.Params)-1])
	return fmt.Sprintf("%s: %s", m.Nick(), text)
}

func (t *talk) plumb(ctx context.Context) error {
	command := "!irc plumb " + channel
	if _, err := t.alice.SendText(ctx, t.room, command); err != nil {
		return err
	}
	saw, err := t.alice.WaitFor(ctx, t.room, func(e bridgetest.Event) bool {
		return e.Sender == t.bot && strings.Contains(e.Body(), channel)
	})
	if err != nil {
		return err
	}
	if !strings.Contains(saw.Body(), "now connected") {
		return errors.New(saw.Body())
	}
	crossed("Matrix", "alice: "+command, "Matrix", "bot: "+saw.Body())
	if _, err := t.alice.WaitFor(ctx, t.room, bridgetest.Member(t.ghost, "join")); err != nil {
		return err
	}
	crossed("IRC", "bob is in "+channel, "Matrix", string(t.ghost)+" joined")
	return nil
}

func (t *talk) textToIRC(ctx context.Context) error {
	for _, text := range []string{"Hello from Matrix!", "Größe, 日本語, 👩‍👩‍👧‍👦: all of it crosses"} {
		if _, err := t.alice.SendText(ctx, t.room, text); err != nil {
			return err
		}
		saw, err := t.bob.waitText(ctx, text)
		if err != nil {
			return err
		}
		crossed("Matrix", "alice: "+text, "IRC", t.onIRC(saw))
	}
	return nil
}

func (t *talk) textToMatrix(ctx context.Context) error {
	text := "Hello from IRC! https://matrix.org stays text"
	if err := t.bob.say(channel, text); err != nil {
		return err
	}
	saw, err := t.alice.WaitFor(ctx, t.room, bridgetest.Message(t.ghost, text))
	if err != nil {
		return err
	}
	crossed("IRC", "bob: "+text, "Matrix", fmt.Sprintf("%s: %s", saw.Sender, saw.Body()))
	return nil
}

func (t *talk) reply(ctx context.Context) error {
	question := "Do you read me?"
	if err := t.bob.say(channel, question); err != nil {
		return err
	}
	asked, err := t.alice.WaitFor(ctx, t.room, bridgetest.Message(t.ghost, question))
	if err != nil {
		return err
	}
	answer := "Loud and clear."
	if _, err := t.alice.SendReply(ctx, t.room, asked.ID, answer); err != nil {
		return err
	}
	saw, err := t.bob.waitText(ctx, answer)
	if err != nil {
		return err
	}
	if !strings.Contains(saw.Params[1], "bob") {
		return fmt.Errorf("the reply does not say whom it answers: %q", saw.Params[1])
	}
	crossed("Matrix", fmt.Sprintf("alice, in reply to “%s”: %s", question, answer), "IRC", t.onIRC(saw))
	return nil
}

func (t *talk) actions(ctx context.Context) error {
	if _, err := t.alice.SendEmote(ctx, t.room, "waves at IRC"); err != nil {
		return err
	}
	saw, err := t.bob.waitText(ctx, "waves at IRC")
	if err != nil {
		return err
	}
	crossed("Matrix", "alice does: waves at IRC", "IRC", t.onIRC(saw))
	if err := t.bob.act(channel, "waves back"); err != nil {
		return err
	}
	emote, err := t.alice.WaitFor(ctx, t.room, bridgetest.Message(t.ghost, "waves back"))
	if err != nil {
		return err
	}
	if emote.MsgType() != "m.emote" {
		return fmt.Errorf("an action arrived as %s", emote.MsgType())
	}
	crossed("IRC", "bob does: waves back", "Matrix", fmt.Sprintf("%s does: %s", emote.Sender, emote.Body()))
	return nil
}

func (t *talk) typing(ctx context.Context) error {
	if err := t.alice.Typing(ctx, t.room, true); err != nil {
		return err
	}
	if _, err := t.bob.wait(ctx, "typing", func(m ircmsg.Message) bool {
		_, state := m.GetTag("+typing")
		return m.Command == "TAGMSG" && state == "active"
	}); err != nil {
		return err
	}
	crossed("Matrix", "alice is typing …", "IRC", "trestle is typing …")
	if err := t.alice.Typing(ctx, t.room, false); err != nil {
		return err
	}
	if err := t.bob.write("@+typing=active TAGMSG " + channel); err != nil {
		return err
	}
	if _, err := t.alice.WaitFor(ctx, t.room, func(e bridgetest.Event) bool {
		return e.Type == "m.typing" && len(e.TypingUsers()) > 0 && e.TypingUsers()[0] == t.ghost
	}); err != nil {
		return err
	}
	crossed("IRC", "bob is typing …", "Matrix", string(t.ghost)+" is typing …")
	return t.bob.write("@+typing=done TAGMSG " + channel)
}

func (t *talk) topic(ctx context.Context) error {
	if err := t.bob.write("TOPIC " + channel + " :Trestle, seen from IRC"); err != nil {
		return err
	}
	if _, err := t.alice.WaitFor(ctx, t.room, func(e bridgetest.Event) bool {
		return e.Type == "m.room.topic" && e.Content["topic"] == "Trestle, seen from IRC"
	}); err != nil {
		return err
	}
	crossed("IRC", "bob sets the topic: Trestle, seen from IRC", "Matrix", "topic: Trestle, seen from IRC")
	if err := t.bob.write("MODE " + channel + " +o trestle"); err != nil { // only operators set topics
		return err
	}
	if _, err := t.bob.wait(ctx, "the bot as operator", func(m ircmsg.Message) bool { return m.Command == "MODE" }); err != nil {
		return err
	}
	if _, err := t.alice.SetTopic(ctx, t.room, "Trestle, seen from Matrix"); err != nil {
		return err
	}
	if _, err := t.bob.wait(ctx, "the topic", func(m ircmsg.Message) bool {
		return m.Command == "TOPIC" && len(m.Params) == 2 && m.Params[1] == "Trestle, seen from Matrix"
	}); err != nil {
		return err
	}
	crossed("Matrix", "alice sets the topic: Trestle, seen from Matrix", "IRC", "topic: Trestle, seen from Matrix")
	return nil
}

var link = regexp.MustCompile(`https?://\S+`)

func (t *talk) photo(ctx context.Context) error {
	var photo bytes.Buffer
	picture := image.NewRGBA(image.Rect(0, 0, 320, 240))
	for x := range 320 {
		for y := range 240 {
			picture.Set(x, y, color.RGBA{uint8(x), uint8(y), uint8(x * y), 255})
		}
	}
	if err := png.Encode(&photo, picture); err != nil {
		return err
	}
	if _, err := t.alice.SendImage(ctx, t.room, "photo.png", "image/png", photo.Bytes()); err != nil {
		return err
	}
	saw, err := t.bob.waitText(ctx, "photo.png")
	if err != nil {
		return err
	}
	crossed("Matrix", fmt.Sprintf("alice sends photo.png, %d bytes", photo.Len()), "IRC", t.onIRC(saw))
	url := link.FindString(saw.Params[1])
	if url == "" {
		return fmt.Errorf("there is no link in %q", saw.Params[1])
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !bytes.Equal(got, photo.Bytes()) {
		return fmt.Errorf("the link answers %s with %d bytes, which are not the photo's %d", answer.Status, len(got), photo.Len())
	}
	crossed("IRC", "bob opens the link", "IRC", fmt.Sprintf("%s, %d bytes, the same as alice's", answer.Header.Get("Content-Type"), len(got)))
	return nil
}

func (t *talk) leave(ctx context.Context) error {
	if err := t.bob.write("PART " + channel + " :back in a minute"); err != nil {
		return err
	}
	left, err := t.alice.WaitFor(ctx, t.room, bridgetest.Member(t.ghost, "leave"))
	if err != nil {
		return err
	}
	reason, _ := left.Content["reason"].(string)
	crossed("IRC", "bob leaves: back in a minute", "Matrix", fmt.Sprintf("%s left: %s", t.ghost, reason))
	return nil
}

// answerEverybody lets alice answer whoever writes from IRC, until the demo ends.
func (t *talk) answerEverybody(ctx context.Context) error {
	for {
		e, err := t.alice.WaitFor(ctx, t.room, func(e bridgetest.Event) bool {
			return e.Type == "m.room.message" && strings.HasPrefix(string(e.Sender), "@irc_") && e.Sender != t.bot && e.Sender != t.ghost
		})
		if err != nil {
			return err
		}
		fmt.Printf("  %s, on Matrix: %s\n", e.Sender, e.Body())
		if _, err := t.alice.SendReply(ctx, t.room, e.ID, "I read that on Matrix: "+e.Body()); err != nil {
			return err
		}
	}
}
