package irc

import (
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

func TestJoin_Refused_IsPermanent_AndSaysWhatToDo(t *testing.T) {
	f := start(t, ircd.Options{ChannelLen: 20})
	f.witness.send("JOIN #c")
	f.witness.until(" 366 ")
	for mode, want := range map[string]string{"i": "/invite", "k key": "network.keys", "l 1": "full", "b bridge!*@*": "ban"} {
		f.witness.send("MODE #c +" + mode)
		f.witness.sync()
		err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#c")
		if passes := mode == "l 1"; bridge.IsPermanent(err) == passes || !strings.Contains(err.Error(), want) {
			t.Errorf("+%s: %v", mode, err)
		}
		f.witness.send("MODE #c -" + mode)
		f.witness.sync()
	}
	if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#"+strings.Repeat("x", 40)); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	f.join("#c")
}

func TestJoin_RefusedAfterReconnect_TheRoomIsTold(t *testing.T) {
	f := joined(t, noCaps)
	f.witness.send("MODE #c +i")
	f.witness.sync()
	f.cut()
	f.sink.until(t, "#c warn The bridge cannot join #c")
	if _, err := f.session.Send(f.ctx(), message("x")); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	f.witness.send("MODE #c -i")
	f.witness.sync()
	f.mustSend(message("let in"))
}

func TestJoin_WithAKey(t *testing.T) {
	f := start(t, noCaps, func(c *Config) { c.Keys = map[string]string{"#C": "sesame"} })
	f.witness.send("JOIN #c", "MODE #c +k sesame")
	f.witness.sync()
	f.join("#c")
}

func TestJoin_TwoNamesOfOneChannel_TheSecondIsRefused(t *testing.T) {
	f := start(t, allCaps)
	f.join("#a[1]")
	if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#a{1}"); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	ascii := start(t, ircd.Options{CaseMapping: "ascii"})
	ascii.join("#a[1]")
	ascii.join("#a{1}")
	f.witness.send("JOIN #A{1}", "PRIVMSG #A{1} :hi")
	f.sink.until(t, "#a[1] text witness: hi")
}

func TestKick_NoRejoin_UntilAskedTo(t *testing.T) {
	f := joined(t, allCaps)
	f.witness.send("KICK #c bridge :enough")
	f.sink.until(t, "#c warn The bridge was kicked from #c on IRC by witness (enough)")
	if _, err := f.session.Send(f.ctx(), message("x")); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	f.join("#d")
	f.cut()
	msg := message("elsewhere")
	msg.Channel = "#d"
	f.mustSend(msg)
	if got := f.server.Members("#c"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	f.join("#c")
	f.mustSend(message("back"))
}

func TestLeave_PartsAndForgets(t *testing.T) {
	f := joined(t, allCaps)
	if err := f.session.(bridge.ChannelJoiner).LeaveChannel(f.ctx(), "#c"); err != nil {
		t.Fatal(err)
	}
	f.witness.until("PART #c")
	f.join("#d")
	f.cut()
	msg := message("x")
	msg.Channel = "#d"
	f.mustSend(msg)
	if got := f.server.Members("#c"); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestBan_StopsForGood_AndSaysSo(t *testing.T) {
	f := joined(t, allCaps)
	f.server.Ban("bridge", "no bridges here")
	f.sink.until(t, "banned the bridge. ")
	_, err := f.session.Send(f.ctx(), message("x"))
	if !bridge.IsPermanent(err) || !strings.Contains(err.Error(), "banned") || f.sink.count("no bridges here") != 1 || f.sink.count("log") == 0 {
		t.Errorf("%v", err)
	}
	if err := f.session.(bridge.ChannelJoiner).JoinChannel(f.ctx(), "#d"); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if got := f.server.Nicks(); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestBan_InTheERRORAlone_StopsForGood(t *testing.T) {
	f := joined(t, noCaps)
	f.server.Inject("bridge", "ERROR :Closing Link: bridge[127.0.0.1] (K-Lined: no bridges)")
	f.sink.until(t, "stays away until it is started again")
	if _, err := f.session.Send(f.ctx(), message("x")); !bridge.IsPermanent(err) {
		t.Errorf("%v", err)
	}
}

func TestIsBan(t *testing.T) {
	for text, want := range map[string]bool{
		"Closing Link: x (K-Lined)": true, "Closing Link: x (K-line: bad)": true, "G-Lined: go": true, "Z:lined": true,
		"You are banned": true, "AKILLed": true, "Closing Link: x (Ping timeout)": false, "kline": true,
		"Closing Link: x (Excess Flood)": false, "unbanned": false, "Closing Link: x (Quit: dkliner)": false,
	} {
		if got := isBan(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
