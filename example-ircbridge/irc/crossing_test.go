package irc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

func TestCrossing_BothWays_WithAllCapabilitiesAndWithNone(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": allCaps, "none": noCaps} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts)
			sent := f.mustSend(message("hello"))
			if got := f.witness.until("PRIVMSG"); !strings.HasSuffix(got, "!~trestle@127.0.0.1 PRIVMSG #c :<Alice> hello") {
				t.Error(got)
			}
			if want := map[string]int{"all": 1, "none": 0}[name]; len(sent.IDs) != want {
				t.Errorf("%d IDs, want %d", len(sent.IDs), want)
			}
			f.witness.send("PRIVMSG #C :hello \x02back", "PRIVMSG #c :\x01ACTION waves\x01", "NOTICE #c :look", "TOPIC #c :new topic", "NICK other", "PART #c :bye")
			f.sink.until(t, "#c text witness: hello back html=hello <strong>back</strong>")
			f.sink.until(t, "#c emote witness: waves")
			f.sink.until(t, "#c notice witness: look")
			f.sink.until(t, "#c topic witness: new topic")
			f.sink.until(t, "#c rename witness to other")
			f.sink.until(t, "#c leave other by=: bye")
			if n := f.sink.count("Alice"); n != 0 {
				t.Errorf("%d echoes of our own", n)
			}
		})
	}
}

func TestIncoming_WhoIsThere(t *testing.T) {
	f := start(t, allCaps)
	second := newWitness(t, f.server, "Second")
	f.witness.send("JOIN #c", "TOPIC #c :the topic")
	f.witness.sync()
	second.send("JOIN #c")
	second.until(" 366 ")
	f.join("#c")
	f.sink.until(t, "#c members Second witness")
	f.sink.until(t, "#c topic : the topic")
	third := newWitness(t, f.server, "third")
	third.send("JOIN #c")
	f.sink.until(t, "#c join third")
	f.witness.send("KICK #c third :out")
	f.sink.until(t, "#c leave third by=witness: out")
	second.send("QUIT :gone")
	f.sink.until(t, "#c leave second by=: Quit: gone")
}

func TestIncoming_Lines(t *testing.T) {
	f := joined(t, allCaps)
	for _, test := range []struct{ name, line, want string }{
		{"an ID and a reply", "@msgid=a;+draft/reply=b :x!y@z PRIVMSG #c :hi", "#c text x: hi reply=b"},
		{"typing", "@+typing=active :x!y@z TAGMSG #c", "#c typing x true"},
		{"typing no more", "@+typing=done :x!y@z TAGMSG #c", "#c typing x false"},
		{"not UTF-8", ":x!y@z PRIVMSG #c :caf\xe9", "#c text x: café"},
		{"a carriage return inside", ":x!y@z PRIVMSG #c :a\rb", "#c text x: a b"},
		{"tags that are none", "@\xff=\xff :x!y@z PRIVMSG #c :tags", "#c text x: tags"},
		{"names fold", ":X[1]!y@z PRIVMSG #C :fold", "#c text x{1}: fold"},
		{"a URL stays text", ":x!y@z PRIVMSG #c :https://example.org/", "#c text x: https://example.org/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f.server.Inject("bridge", test.line)
			f.sink.until(t, test.want)
		})
	}
	f.server.Inject("bridge", ":\u202eec\u200dila\x02\x07!x@y PRIVMSG #c :strange nick")
	f.sink.until(t, "strange nick")
	if in := f.sink.newest(); in.Sender.Name != "ecila" {
		t.Errorf("%q", in.Sender.Name)
	}
	f.server.Inject("bridge", "@time=2020-01-02T03:04:05.678Z;msgid=timed :x!y@z PRIVMSG #c :long ago")
	f.sink.until(t, "long ago")
	in := f.sink.newest()
	if in.ID != "timed" || in.Time.UnixMilli() != 1577934245678 {
		t.Errorf("ID %q, time %v", in.ID, in.Time)
	}
}

func TestIncoming_WhatIsNotForTheRoom_StaysOut(t *testing.T) {
	f := joined(t, allCaps)
	for _, line := range []string{
		":x!y@z PRIVMSG @#c :for operators", ":x!y@z PRIVMSG #c :\x01DCC SEND x\x01", ":x!y@z PRIVMSG #other :elsewhere",
		":x!y@z NOTICE #c :\x01VERSION x\x01", ":x!y@z PRIVMSG #c :\x02\x02", ":irc.test PRIVMSG", "::", "@", ":x", "PRIVMSG #c",
		":bridge!y@z PRIVMSG #c :our own", ":x!y@z NOTICE bridge :private",
	} {
		f.server.Inject("bridge", line)
	}
	f.server.Inject("bridge", ":x!y@z PRIVMSG #c :last")
	f.sink.until(t, "#c text x: last")
	if n := f.sink.count("text") + f.sink.count("notice"); n != 1 {
		t.Errorf("%d messages, want 1: %q", n, f.sink.lines())
	}
}

func TestIncoming_Netsplit_ItsContentsAreDelivered(t *testing.T) {
	f := joined(t, allCaps)
	second := newWitness(t, f.server, "second")
	second.send("JOIN #c")
	f.sink.until(t, "#c join second")
	for _, line := range []string{
		":irc.test BATCH +split netsplit a.test b.test", "@batch=split :second!x@y QUIT :a.test b.test", ":irc.test BATCH -split",
	} {
		f.server.Inject("bridge", line)
	}
	f.sink.until(t, "#c leave second by=: a.test b.test")
}

func TestSend_EveryKind(t *testing.T) {
	f := joined(t, allCaps)
	media := &bridge.Media{Name: "photo.jpg", Size: 1_234_567, Width: 1600, Height: 1200, URL: "https://bridge.example/m/x/photo.jpg"}
	for _, test := range []struct {
		name   string
		change func(*bridge.Message)
		want   []string
	}{
		{"an emote", func(m *bridge.Message) { m.Kind = bridge.KindEmote }, []string{"PRIVMSG #c :* Alice x"}},
		{"a notice", func(m *bridge.Message) { m.Kind = bridge.KindNotice }, []string{"NOTICE #c :<Alice> x"}},
		{"formatting", func(m *bridge.Message) { m.HTML = "<b>x</b> y" }, []string{"PRIVMSG #c :<Alice> \x02x\x02 y"}},
		{"lines", func(m *bridge.Message) { m.Text = "a\n\nb" }, []string{"PRIVMSG #c :<Alice> a", "PRIVMSG #c :<Alice> b"}},
		{"too many lines", func(m *bridge.Message) { m.Text = "a\nb\nc\nd\ne\nf\ng" }, []string{
			"#c :<Alice> a", "#c :<Alice> b", "#c :<Alice> c", "#c :<Alice> d", "#c :<Alice> e", "#c :<Alice> … (2 more lines not shown)"}},
		{"a photo", func(m *bridge.Message) { m.Kind, m.Media, m.Text = bridge.KindImage, media, "" },
			[]string{"PRIVMSG #c :<Alice> photo.jpg (1.2 MB, 1600×1200): https://bridge.example/m/x/photo.jpg"}},
		{"a photo with a caption", func(m *bridge.Message) { m.Kind, m.Media, m.Text = bridge.KindImage, media, "my\ncat" },
			[]string{"photo.jpg (1.2 MB, 1600×1200): https://bridge.example/m/x/photo.jpg — my cat"}},
		{"a file without a link", func(m *bridge.Message) { m.Kind, m.Text, m.Media = bridge.KindFile, "", &bridge.Media{Name: "a\r\nb"} },
			[]string{"PRIVMSG #c :<Alice> file a b"}},
		{"a reply with an ID", func(m *bridge.Message) { m.ReplyTo = &bridge.Reply{Name: "bob", RemoteID: "abc", Remote: true} },
			[]string{"PRIVMSG #c :<Alice> bob: x"}},
		{"a reply's fallback goes", func(m *bridge.Message) {
			m.Text, m.ReplyTo = "> <@bob:x> secret\n\nmine", &bridge.Reply{Name: "bob"}
		}, []string{"PRIVMSG #c :<Alice> bob: mine"}},
		{"a reply that names them already", func(m *bridge.Message) { m.Text, m.ReplyTo = "Bob: x", &bridge.Reply{Name: "bob"} },
			[]string{"PRIVMSG #c :<Alice> Bob: x"}},
		{"a name of nothing", func(m *bridge.Message) { m.Sender.Name = "\u202e\u200b" }, []string{"PRIVMSG #c :<alice> x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			msg := message("x")
			test.change(msg)
			f.mustSend(msg)
			for _, want := range test.want {
				got := f.witness.until(" #c :")
				if !strings.HasSuffix(got, want) {
					t.Errorf("got  %q\nwant %q", got, want)
				}
				if test.name == "a reply with an ID" && (!strings.Contains(got, "+draft/reply=abc") || !strings.Contains(got, "+reply=abc")) {
					t.Errorf("no tag in %q", got)
				}
			}
		})
	}
	f.sink.until(t, "#c warn A message of @alice:example.org was too long for IRC: 2 of its lines were not shown there.")
}

func TestSend_LongText_EveryLineArrivesWhole(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": allCaps, "none": noCaps} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts, func(c *Config) { c.MaxLines = 100 })
			text := strings.Repeat("Grüße 👨‍👩‍👧‍👦, ", 100) + "end"
			f.mustSend(message(text))
			var got strings.Builder
			for !strings.HasSuffix(got.String(), "end") {
				line := f.witness.until("PRIVMSG")
				_, line, _ = strings.Cut(line, ":") // without tags
				if len(line)+3 > 512 || !utf8.ValidString(line) {
					t.Errorf("%d bytes: %q", len(line), line)
				}
				_, part, ok := strings.Cut(line, "<Alice> ")
				if !ok {
					t.Fatalf("no name in %q", line)
				}
				got.WriteString(part)
			}
			if bare := func(s string) string { return strings.ReplaceAll(s, " ", "") }; bare(got.String()) != bare(text) {
				t.Errorf("text changed: %q", got.String())
			}
		})
	}
}

func TestSend_Injection_OneLineOnly(t *testing.T) {
	f := joined(t, allCaps)
	msg := message("x\rQUIT :a\x00\nPART #c\u2028KICK")
	msg.Sender.Name = "Al\r\nQUIT :ice\x00> \x01"
	msg.HTML = "x&#13;&#10;QUIT"
	msg.ReplyTo = &bridge.Reply{Name: "b\r\nQUIT", RemoteID: "a\r\nQUIT ;x=\x00"}
	msg.Kind, msg.Media = bridge.KindFile, &bridge.Media{Name: "n\r\nQUIT", URL: "https://x/\r\nQUIT :x y"}
	_, _ = f.session.Send(f.ctx(), msg)
	msg = message("\x01DCC SEND x\x01\r\nQUIT")
	f.mustSend(msg)
	f.witness.sync()
	for _, line := range f.server.Lines("bridge") {
		if command := strings.Fields(strings.TrimLeft(line, " "))[0]; strings.HasPrefix(command, "QUIT") || strings.HasPrefix(command, "PART") ||
			strings.ContainsAny(line, "\x00\x01\r") {
			t.Errorf("the server got %q", line)
		}
	}
	if len(f.server.Members("#c")) != 2 {
		t.Error("the bridge has left")
	}
}

func TestEncode_Breaks_AreErrors(t *testing.T) {
	for _, params := range [][]string{{"#c", "a\nb"}, {"#c", "a\rb"}, {"#c", "a\x00b"}, {"#c d", "x"}, {"", "x"}, {":c", "x"}, {"#c", "\xff"}} {
		if line, err := encode(nil, 512, "PRIVMSG", params...); err == nil {
			t.Errorf("%q became %q", params, line)
		}
	}
	line, err := encode(map[string]string{"+reply": "a b;c\r\n"}, 512, "PRIVMSG", "#c", "x")
	if err != nil || string(line) != "@+reply=a\\sb\\:c\\r\\n PRIVMSG #c :x\r\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestSend_Refused_IsPermanent_AndSaysWhatToDo(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": allCaps, "none": noCaps} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts)
			f.witness.send("MODE #c +m")
			f.witness.sync()
			for _, kind := range []bridge.Kind{bridge.KindText, bridge.KindText} {
				msg := message("x")
				msg.Kind = kind
				_, err := f.session.Send(f.ctx(), msg)
				if !bridge.IsPermanent(err) || !strings.Contains(err.Error(), "+v") {
					t.Errorf("%v", err)
				}
			}
			f.witness.send("MODE #c -m")
			f.witness.sync()
			f.mustSend(message("after"))
		})
	}
}

func TestSend_ShowsNothing_IsPermanent(t *testing.T) {
	f := joined(t, noCaps)
	_, err := f.session.Send(f.ctx(), message("\x00\x01 \n"))
	if !bridge.IsPermanent(err) || !errors.Is(err, errNothing) {
		t.Errorf("%v", err)
	}
}

func TestTopic(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": {TopicLen: 20}, "none": {TopicLen: 20, Capabilities: []string{}}} {
		t.Run(name, func(t *testing.T) {
			f := joined(t, opts)
			set := func(topic string) (string, error) {
				return f.session.(bridge.TopicSender).SendTopic(f.ctx(), "#c", topic, bridge.Sender{ID: "@alice:x", Name: "Alice"})
			}
			if _, err := set("x"); !bridge.IsPermanent(err) || !strings.Contains(err.Error(), "+o bridge") && !strings.Contains(err.Error(), "operator") {
				t.Errorf("%v", err)
			}
			f.server.Op("#c", "bridge", true)
			said, err := set("one\ntwo and a long rest")
			if err != nil {
				t.Fatal(err)
			}
			if got := f.server.Topic("#c"); got != "one two and a lon…" || said != got {
				t.Errorf("%q, and we say %q", got, said)
			}
			if n := f.sink.count("#c topic bridge"); n != 0 {
				t.Error("our own topic came back")
			}
		})
	}
}

func TestMembership_IsANotice_UnlessOff(t *testing.T) { withoutDelay(t, tellsOfMembership) }

func tellsOfMembership(t *testing.T) {
	f := joined(t, piping(noCaps))
	tell := func(user bridge.Sender, join bool) {
		t.Helper()
		m := &bridge.Membership{Channel: "#c", User: user, Joined: join}
		if !join {
			m.Reason = "good\nby\re"
		}
		if err := f.session.(bridge.MembershipSender).SendMembership(f.ctx(), m); err != nil {
			t.Fatal(err)
		}
	}
	want := func(text string) {
		t.Helper()
		if got := f.witness.until("NOTICE #c"); !strings.HasSuffix(got, "NOTICE #c :"+text) {
			t.Errorf("%q", got)
		}
	}
	user := bridge.Sender{ID: "@bob:x", Name: "Bob\r\n"}
	alice, carol := bridge.Sender{ID: "@alice:x", Name: "Alice"}, bridge.Sender{ID: "@carol:x", Name: "Carol"}
	tell(user, true)
	want("Bob (@bob:x) joined")
	tell(user, false)
	want("Bob (@bob:x) left: good by e")
	tell(user, true)
	tell(alice, true)
	tell(carol, false)
	want("Bob, Alice joined; Carol left (Matrix)")
	tell(carol, true)
	tell(user, true)
	tell(user, false)
	want("Carol (@carol:x) joined")
	for i := range 13 {
		tell(bridge.Sender{ID: id.UserID(fmt.Sprintf("@u%d:x", i)), Name: fmt.Sprintf("u%d", i)}, true)
	}
	want("u0, u1, u2, u3, u4, u5, u6, u7, u8, u9 and 3 more joined (Matrix)")
	off := joined(t, piping(noCaps), func(c *Config) { c.Membership = MembershipOff })
	if err := off.session.(bridge.MembershipSender).SendMembership(off.ctx(), &bridge.Membership{Channel: "#c", User: user}); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Join(off.server.Lines("bridge"), "\n"); strings.Contains(lines, "NOTICE") {
		t.Error(lines)
	}
}

func TestMembership_GivesWayToMessages_AndGrowsOld(t *testing.T) {
	f := joined(t, noCaps)
	s := f.session.(*session)
	s.mu.Lock()
	q := s.link.queue
	s.mu.Unlock()
	tokens := func(used time.Duration) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.bucket.interval, q.bucket.burst, q.bucket.used, q.bucket.at = time.Minute, 8, used, time.Now()
	}
	tokens(5 * time.Minute) // three of eight are left: for messages
	if err := s.SendMembership(f.ctx(), &bridge.Membership{Channel: "#c", User: bridge.Sender{ID: "@bob:x", Name: "Bob"}, Joined: true}); err != nil {
		t.Fatal(err)
	}
	s.tell()
	f.mustSend(message("first"))
	s.tell()
	if f.got("joined") {
		t.Error("the notice took a token that messages need")
	}
	s.mu.Lock()
	s.tidings["#c"].since = time.Now().Add(-time.Hour)
	s.mu.Unlock()
	f.sink.until(t, "Not told on IRC")
	tokens(0)
	s.tell()
	f.mustSend(message("last"))
	if f.got("joined") {
		t.Error("the notice was told an hour late")
	}
}

func TestTyping_NeedsMessageTags(t *testing.T) {
	f := joined(t, allCaps)
	typing := f.session.(bridge.TypingSender)
	for _, users := range [][]bridge.Sender{{{ID: "@a:x"}}, {{ID: "@a:x"}, {ID: "@b:x"}}, nil} {
		if err := typing.SendTyping(f.ctx(), "#c", users); err != nil {
			t.Fatal(err)
		}
	}
	f.witness.until("+typing=active")
	f.witness.until("+typing=done")
	bare := joined(t, noCaps)
	_ = bare.session.(bridge.TypingSender).SendTyping(bare.ctx(), "#c", []bridge.Sender{{ID: "@a:x"}})
	bare.mustSend(message("x"))
	if lines := strings.Join(bare.server.Lines("bridge"), "\n"); strings.Contains(lines, "TAGMSG") {
		t.Error(lines)
	}
}

func TestPrivate_IsAnsweredNowAndThen(t *testing.T) {
	f := joined(t, allCaps)
	f.witness.send("PRIVMSG bridge :\x01VERSION\x01")
	if got := f.witness.until("NOTICE witness"); !strings.Contains(got, "1.2.3") {
		t.Error(got)
	}
	f.witness.send("PRIVMSG bridge :hello?", "PRIVMSG bridge :hello?")
	f.witness.until("I am a bridge")
	for range 20 {
		f.witness.send("PRIVMSG bridge :\x01PING 1\x01")
	}
	f.witness.sync()
	f.mustSend(message("x"))
	n := 0
	for _, line := range f.server.Lines("bridge") {
		if strings.HasPrefix(line, "NOTICE witness") {
			n++
		}
	}
	if n > answersPerMinute {
		t.Errorf("%d answers", n)
	}
}

func TestSend_ManyChannelsAtOnce_OrderInEach(t *testing.T) {
	for name, opts := range map[string]ircd.Options{"all": allCaps, "none": noCaps} {
		t.Run(name, func(t *testing.T) {
			f := start(t, opts)
			const channels, each = 6, 8
			for c := range channels {
				f.witness.send(fmt.Sprintf("JOIN #c%d", c))
				f.witness.until(" 366 ")
				f.join(fmt.Sprintf("#c%d", c))
			}
			errs := make(chan error, channels)
			for c := range channels {
				go func() {
					for i := range each {
						msg := message(fmt.Sprintf("%d-%d", c, i))
						msg.Channel = fmt.Sprintf("#c%d", c)
						if _, err := f.session.Send(f.ctx(), msg); err != nil {
							errs <- err
							return
						}
					}
					errs <- nil
				}()
			}
			for range channels {
				if err := <-errs; err != nil {
					t.Fatal(err)
				}
			}
			next := map[byte]byte{}
			for range channels * each {
				_, text, _ := strings.Cut(f.witness.until("PRIVMSG"), "<Alice> ")
				if text[2] != next[text[0]]+'0' {
					t.Errorf("%q, but %d was next", text, next[text[0]])
				}
				next[text[0]]++
			}
		})
	}
}
