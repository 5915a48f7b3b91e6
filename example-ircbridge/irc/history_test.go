package irc

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

// withHistory is a server that keeps what is said. Without labels a PING behind a line confirms it.
var withHistory = ircd.Options{History: 1000, Capabilities: []string{"batch", "message-tags", "server-time", historyCap}}

// texts are the messages delivered from a channel, without those that came again, as the bridge knows them by their IDs.
func (s *sink) texts() (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, in := range s.events {
		if in.Text != nil && !seen[in.ID] {
			seen[in.ID] = true
			texts = append(texts, in.Text.Body)
		}
	}
	return texts
}

func (s *sink) taken(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = at
}

func TestHistory_AfterAReconnect_IsFetchedInOrderBeforeWhatIsSaidThen(t *testing.T) {
	f := joined(t, withHistory, func(c *Config) {
		c.Reconnect = Reconnect{First: 300 * time.Millisecond, Max: time.Second, Timeout: 15 * time.Second}
	})
	f.witness.send("PRIVMSG #c :known")
	f.sink.until(t, "known")
	f.sink.taken(f.sink.newest().Time)
	f.server.Disconnect("bridge")
	var want []string
	for i := range 250 { // three pages
		f.witness.send(fmt.Sprintf("PRIVMSG #c :missed %d", i))
		want = append(want, fmt.Sprint("missed ", i))
	}
	f.witness.send("PRIVMSG #c :\x01ACTION waves\x01")
	f.witness.until("JOIN #c")
	f.witness.send("PRIVMSG #c :live")
	f.sink.until(t, "live")
	want = append(append([]string{"known"}, want...), "waves", "live")
	if got := f.sink.texts(); strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("delivered:\n%s", strings.Join(got, "\n"))
	}
	if got := f.sink.count("members"); got != 2 {
		t.Errorf("%d lists of members, want one for each connection", got)
	}
}

func TestHistory_MoreThanIsAllowed_IsCutAndSaid(t *testing.T) {
	f := joined(t, withHistory, func(c *Config) { c.History = 3 })
	f.sink.taken(time.Now())
	f.server.Disconnect("bridge")
	f.witness.until("QUIT")
	for i := range 5 {
		f.server.Do("witness", fmt.Sprintf("PRIVMSG #c :missed %d", i))
	}
	f.sink.until(t, "more was said in #c than it fetches (3 messages)")
	f.sink.until(t, "missed 0")
	if f.sink.count("missed 4") > 0 {
		t.Error("more was fetched than is allowed")
	}
}

func TestHistory_OfAChannelThatNothingCameFrom_IsNotAskedFor(t *testing.T) {
	f := joined(t, withHistory)
	f.witness.send("PRIVMSG #c :now")
	f.sink.until(t, "now")
	if f.got("CHATHISTORY") {
		t.Error("it was asked for")
	}
}

func TestHistory_Refused_HoldsNothingUp(t *testing.T) {
	f := joined(t, withHistory)
	f.sink.taken(time.Now())
	f.server.Hold("bridge", true)
	s := f.session.(*session)
	s.mu.Lock()
	s.crew.mu.Lock()
	w := s.crew.channels["#c"]
	w.waits, w.by = true, s
	s.crew.mu.Unlock()
	s.link.looksBack(s.channels["#c"])
	s.link.unlock()
	f.received("CHATHISTORY")
	f.witness.send("PRIVMSG #c :held")
	f.server.Inject("bridge", ":irc.test FAIL CHATHISTORY MESSAGE_ERROR AFTER #c :no")
	f.sink.until(t, "held")
	f.server.Hold("bridge", false)
}

// inDoubt makes a message be in doubt: the server has its first so many lines, and the link breaks before they are confirmed.
func (f *fixture) inDoubt(text string, arrived int) {
	f.t.Helper()
	f.server.Hold("bridge", true)
	result := make(chan error, 1)
	go func() {
		_, err := f.session.Send(f.ctx(), message(text))
		result <- err
	}()
	lines := strings.Split(text, "\n")
	f.received(lines[len(lines)-1])
	for _, line := range lines[:arrived] {
		f.server.Do("bridge", "PRIVMSG #c :<Alice> "+line)
	}
	f.server.Disconnect("bridge")
	if err := <-result; !bridge.IsInDoubt(err) {
		f.t.Fatalf("%v", err)
	}
}

func (f *fixture) settle(text string, known ...string) (sent bridge.Sent, there bool, err error) {
	f.t.Helper()
	msg := message(text)
	msg.Time = time.Now()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		sent, there, err = f.session.(bridge.DoubtSettler).Settle(f.ctx(), msg, func(id string) (bool, error) {
			for _, k := range known {
				if k == id {
					return true, nil
				}
			}
			return false, nil
		})
		if !errors.Is(err, bridge.ErrOffline) || time.Now().After(deadline) {
			return sent, there, err
		}
	}
}

func TestSettle_LineArrived_IsFoundInTheHistory(t *testing.T) {
	f := joined(t, withHistory)
	f.inDoubt("perhaps", 1)
	sent, there, err := f.settle("perhaps")
	if err != nil || !there || len(sent.IDs) != 1 {
		t.Fatalf("%v, %v, %v", sent, there, err)
	}
	// The same text again is another message.
	if _, there, err := f.settle("perhaps", sent.IDs...); err != nil || there {
		t.Errorf("a message that is accounted for was taken for another: %v, %v", there, err)
	}
}

func TestSettle_NothingArrived_IsNotThere_AndPartsThatDidAreNotSentAgain(t *testing.T) {
	f := joined(t, withHistory)
	f.witness.send("PRIVMSG #c :before") // shows that the history is whole
	f.sink.until(t, "before")
	f.mustSend(message("mine"))
	f.inDoubt("perhaps", 0)
	if _, there, err := f.settle("perhaps"); err != nil || there {
		t.Errorf("%v, %v", there, err)
	}
	f.inDoubt("one\ntwo\nthree", 2)
	if _, there, err := f.settle("one\ntwo\nthree"); err != nil || there {
		t.Fatalf("%v, %v", there, err)
	}
	f.mustSend(message("one\ntwo\nthree"))
	f.witness.until("<Alice> three")
	f.mustSend(message("end"))
	f.witness.until("<Alice> end")
	all := strings.Join(f.witness.seen, "\n")
	for _, line := range []string{"one", "two", "three"} {
		if n := strings.Count(all, "<Alice> "+line); n != 1 {
			t.Errorf("%q is there %d times", line, n)
		}
	}
}

func TestSettle_HistoryThatReachesNotBack_CannotTell(t *testing.T) {
	f := joined(t, withHistory)
	f.inDoubt("perhaps", 0)
	if _, _, err := f.settle("perhaps"); !bridge.IsInDoubt(err) {
		t.Errorf("%v", err)
	}
}

func TestSettle_WithoutAHistory_CannotTell_AtOnce(t *testing.T) {
	f := joined(t, noCaps)
	f.inDoubt("perhaps", 1)
	if _, _, err := f.session.(bridge.DoubtSettler).Settle(f.ctx(), message("perhaps"), nil); !bridge.IsInDoubt(err) {
		t.Errorf("%v", err)
	}
}
