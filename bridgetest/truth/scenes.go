package truth

import (
	"net/http"
	"strings"
	"time"
)

// invitation is the first that the appservice hears.
func (s *scenario) invitation() {
	if s.err != nil {
		return
	}
	begun := len(s.since(0))
	s.alice("POST", "rooms/{room}/invite", `{"user_id": "@echo_g1:{domain}"}`)
	s.await(begun, "the invitation", holds(`"invite"`))
	if s.err == nil {
		first := s.since(begun)[0]
		s.note("## how it is asked and sent\n%s %s before the invitation\nquery %q", first.method, first.path, first.query)
		for _, g := range s.since(begun) {
			for _, name := range []string{"Authorization", "Content-Type", "Accept", "User-Agent"} {
				s.note("%s %s: %s", g.method, name, version.ReplaceAllString(g.header.Get(name), "$1/<version>"))
			}
		}
		record(&s.out, "a ghost that is not registered is invited", s.since(begun))
	}
	s.part("the ghost registers and joins", func() []string {
		s.request(s.Registration.ASToken, "POST", "register", `{"type": "m.login.application_service", "username": "echo_g1", "inhibit_login": true}`)
		s.ghost("POST", "join/{room}", `{}`)
		return []string{`"join"`}
	})
}

// events is what happens in rooms.
func (s *scenario) events() {
	s.part("state, replaced", func() []string {
		s.alice("PUT", "rooms/{room}/state/m.room.name", `{"name": "another"}`)
		return []string{"another"}
	})
	s.part("the ghost's own words come back", func() []string {
		s.ghost("PUT", "rooms/{room}/send/m.room.message/{txn}", `{"msgtype": "m.text", "body": "mine"}`)
		s.ghost("PUT", "rooms/{room}/send/m.room.message/{txn}?ts=1500000000000", `{"msgtype": "m.text", "body": "old"}`)
		return []string{"mine", "old"}
	})
	s.part("a redaction", func() []string {
		wrong := s.says("wrong")
		s.await(s.begun, "what is wrong", holds("wrong")) // what is redacted before it was sent can go either way
		s.alice("PUT", "rooms/{room}/redact/"+wrong+"/{txn}", `{"reason": "typo"}`)
		return []string{"typo"}
	})
	s.part("a room of an unknown address is asked for", func() []string {
		s.status(http.StatusNotFound, "GET", "directory/room/%23echo_nowhere:{domain}")
		return nil
	})
	s.part("a name is changed", func() []string {
		s.ghost("PUT", "profile/@echo_g1:{domain}/displayname", `{"displayname": "Echo"}`)
		return []string{`"Echo"`}
	})
	s.part("the ghost is kicked, banned and unbanned", func() []string {
		s.alice("POST", "rooms/{room}/kick", `{"user_id": "@echo_g1:{domain}", "reason": "away"}`)
		s.alice("POST", "rooms/{room}/ban", `{"user_id": "@echo_g1:{domain}"}`)
		s.alice("POST", "rooms/{room}/unban", `{"user_id": "@echo_g1:{domain}"}`)
		s.ghost("POST", "join/{room}", `{}`)
		return []string{`"ban"`}
	})
}

// ephemeral is typing, receipts and presence.
func (s *scenario) ephemeral() {
	typing := func(is string) string { return `{"typing": ` + is + `, "timeout": 100000}` }
	s.part("typing, first one and then two, and a message meanwhile", func() []string {
		s.alice("PUT", "rooms/{room}/typing/@alice:{domain}", typing("true"))
		s.await(s.begun, "alice typing", holds(`"user_ids":["@alice:`+s.Domain+`"]`))
		s.says("while typing")
		s.ghost("PUT", "rooms/{room}/typing/@echo_g1:{domain}", typing("true"))
		s.await(s.begun, "the ghost typing", holds(`@echo_g1:`+s.Domain+`"`))
		return []string{`"m.typing"`}
	})
	s.part("the end of typing", func() []string {
		s.ghost("PUT", "rooms/{room}/typing/@echo_g1:{domain}", typing("false"))
		s.await(s.begun, "only alice typing", holds(`"user_ids":["@alice:`+s.Domain+`"]`))
		s.alice("PUT", "rooms/{room}/typing/@alice:{domain}", typing("false"))
		return []string{`"user_ids":[]`}
	})
	s.part("receipts: read, private, in a thread, the ghost's own", func() []string {
		id := s.says("to be read")
		s.alice("POST", "rooms/{room}/receipt/m.read/"+id, `{}`)
		s.await(s.begun, "a receipt", holds(`{"m.read":{"@alice`))
		s.alice("POST", "rooms/{room}/receipt/m.read.private/"+id, `{}`)
		s.await(s.begun, "a private receipt", holds(`"m.read.private":{"@alice`))
		id = s.says("another to be read")
		s.alice("POST", "rooms/{room}/receipt/m.read/"+id, `{"thread_id": "main"}`)
		s.await(s.begun, "a receipt of a thread", holds(`"`+id+`":{"m.read":{"@alice`))
		s.ghost("POST", "rooms/{room}/receipt/m.read/"+id, `{}`)
		return []string{`{"m.read":{"@echo_g1`}
	})
	s.part("presence that was set", func() []string {
		s.ghost("PUT", "presence/@echo_g1:{domain}/status", `{"presence": "unavailable", "status_msg": "busy"}`)
		return []string{"busy"}
	})
}

// devices is what encryption needs.
func (s *scenario) devices() {
	const key = `{"key": "iHUapjAFwwqAzSglkNU2gLdrf6FgrX/U2hqL8nAZHqo", "signatures": {}}`
	s.part("a device with keys", func() []string {
		s.ghost("PUT", "devices/DEV1", `{"display_name": "bridge"}`)
		s.ghost("PUT", "devices/DEV2", `{}`)
		s.ghost("POST", "keys/upload?device_id=DEV1", `{
			"device_keys": {"user_id": "@echo_g1:{domain}", "device_id": "DEV1", "algorithms": [], "keys": {"ed25519:DEV1": "nHLlkGDl+nrowQbSQ56zZUn0r439aYFq1GcSaEDJUqA"}, "signatures": {}},
			"one_time_keys": {"signed_curve25519:AAAA": `+key+`, "signed_curve25519:AAAB": `+key+`}, "fallback_keys": {"signed_curve25519:AAAC": `+key+`}}`)
		return []string{`"changed":["@echo_g1`}
	})
	s.part("messages to its devices", func() []string {
		s.alice("PUT", "sendToDevice/com.example.one/{txn}", `{"messages": {"@echo_g1:{domain}": {"DEV1": {"a": 1}}}}`)
		s.await(s.begun, "the message to one", holds("com.example.one"))
		s.alice("PUT", "sendToDevice/com.example.all/{txn}", `{"messages": {"@echo_g1:{domain}": {"*": {"a": 2}}}}`)
		return []string{"com.example.all"}
	})
	s.part("a key is claimed", func() []string {
		for range 3 {
			s.alice("POST", "keys/claim", `{"one_time_keys": {"@echo_g1:{domain}": {"DEV1": "signed_curve25519"}}}`)
		}
		return nil
	})
	s.part("cross-signing keys, which count as devices", func() []string {
		s.ghost("POST", "keys/device_signing/upload", `{"master_key": {"user_id": "@echo_g1:{domain}", "usage": ["master"],
			"keys": {"ed25519:UkYhSE/SOphAk78h6RvgN09or7cxgm8uDsGbXyvliP0": "UkYhSE/SOphAk78h6RvgN09or7cxgm8uDsGbXyvliP0"}}}`)
		return []string{`"changed":["@echo_g1`}
	})
}

// few is something of each kind.
func (s *scenario) few() {
	s.part("typing, a receipt and a message to a device", func() []string {
		s.ghost("PUT", "devices/DEV1", `{"display_name": "bridge"}`)
		s.alice("PUT", "sendToDevice/com.example.one/{txn}", `{"messages": {"@echo_g1:{domain}": {"DEV1": {"a": 1}}}}`)
		s.alice("PUT", "rooms/{room}/typing/@alice:{domain}", `{"typing": true, "timeout": 100000}`)
		s.await(s.begun, "typing", holds(`"m.typing"`))
		s.alice("POST", "rooms/{room}/receipt/m.read/"+s.says("to be read"), `{}`)
		return []string{`"m.receipt"`}
	})
	s.part("the appservice is asked for users, rooms and whether it is there", func() []string {
		s.status(http.StatusNotFound, "GET", "directory/room/%23echo_nowhere:{domain}")
		s.ping()
		return nil
	})
	if s.err == nil {
		for _, g := range s.since(0) {
			if g.query != "" {
				s.note("%s %s: query %q", g.method, strings.TrimRight(g.path, "0123456789"), g.query)
				break
			}
		}
	}
}

// success is what counts as one.
func (s *scenario) success() {
	for _, is := range []answerOnce{{"answered 202", http.StatusAccepted, "{}"}, {"answered with nothing", http.StatusOK, ""}} {
		if s.err != nil {
			return
		}
		begun := len(s.since(0))
		s.answerNext(is.to, is.status, is.body)
		s.says(is.to)
		s.await(begun, is.to, holds(is.to))
		s.quiet()
		s.says("and the next")
		s.await(begun, "the next", holds("and the next"))
		times := 0
		for _, g := range s.since(begun) {
			if g.transaction() != "" && strings.Contains(g.raw, is.to) {
				times++
			}
		}
		s.note("## a transaction is answered %d %q\nit comes %d times", is.status, is.body, times)
	}
}

// failure is a transaction that fails, and what comes meanwhile.
func (s *scenario) failure() {
	if s.err != nil {
		return
	}
	s.note("## a transaction with typing fails, and things happen meanwhile")
	begun := len(s.since(0))
	s.fail(`["@alice:` + s.Domain + `"]`)
	s.alice("PUT", "rooms/{room}/typing/@alice:{domain}", `{"typing": true, "timeout": 100000}`)
	s.await(begun, "the failure", refusedOnes(1))
	s.says("first meanwhile")
	s.says("second meanwhile")
	s.alice("PUT", "sendToDevice/com.example.lost/{txn}", `{"messages": {"@echo_g1:{domain}": {"DEV1": {"a": 3}}}}`)
	s.await(begun, "a second failure", refusedOnes(2))
	s.fail("")
	s.await(begun, "the words", holds("second meanwhile"))
	s.quiet() // the rest of what was kept is on its way
	s.retried(s.since(begun))
	s.part("after the failure", func() []string {
		s.ghost("PUT", "rooms/{room}/typing/@echo_g1:{domain}", `{"typing": true, "timeout": 100000}`)
		s.await(s.begun, "typing", holds(`"m.typing"`))
		s.ghost("PUT", "rooms/{room}/typing/@echo_g1:{domain}", `{"typing": false}`)
		s.await(s.begun, "only alice typing", holds(`"user_ids":["@alice:`+s.Domain+`"]`))
		s.alice("PUT", "rooms/{room}/typing/@alice:{domain}", `{"typing": false}`)
		return []string{`"user_ids":[]`}
	})
}

func refusedOnes(n int) func([]push) bool {
	return func(got []push) bool {
		have := 0
		for _, g := range got {
			if g.refused {
				have++
			}
		}
		return have >= n
	}
}

// retried writes down what came of the first transaction that was refused.
func (s *scenario) retried(got []push) {
	if s.err != nil {
		return
	}
	first, failures := "", 0
	var taken []push
	for _, g := range got {
		switch {
		case g.transaction() == "":
		case g.refused:
			if first == "" {
				first = g.transaction()
			}
			if failures++; failures <= 2 {
				s.note("refused: the first again: %v; typing in it: %v", g.transaction() == first, strings.Contains(g.raw, "m.typing"))
			}
		case first != "":
			taken = append(taken, g)
		}
	}
	if len(taken) == 0 {
		return
	}
	s.note("taken first: the refused one: %v; typing in it: %v; with counts: %v", taken[0].transaction() == first, strings.Contains(taken[0].raw, "m.typing"), countsOf(&taken[0]) != "")
	record(&s.out, "what was taken then", taken)
}

// restarts are those of the homeserver, with nothing pending and with an appservice that is down.
func (s *scenario) restarts() {
	s.quiet() // else the answer to the last transaction may be lost
	s.restart(func() {})
	s.says("after the restart")
	s.await(s.begun, "words after the restart", holds("after the restart"))
	if s.err == nil {
		s.note("## a restart with nothing pending\nthe next transaction is %s", s.since(s.begun)[0].transaction())
	}
	begun := len(s.since(0))
	s.fail("before the second")
	s.says("before the second restart")
	s.await(begun, "the second failure", refusedOnes(2)) // after which the first is noted for certain
	s.restart(func() { s.fail("") })
	s.note("## a restart while the appservice is down")
	s.silence("nothing happens")
	s.ping()
	s.silence("a ping")
	s.says("and on")
	s.await(s.begun, "the words after", holds("and on"))
	s.await(s.begun, "the words before", holds("before the second"))
	if s.err == nil {
		record(&s.out, "the next event flushes", s.since(s.begun))
	}
}

// restart does something between the end and the start.
func (s *scenario) restart(meanwhile func()) {
	if s.err != nil {
		return
	}
	s.Stop()
	meanwhile()
	s.begun = len(s.since(0))
	s.err = s.Start()
}

// quiet waits until nothing has come for a while, which is shorter than any pause before a retry.
func (s *scenario) quiet() {
	for n := -1; s.err == nil && n != len(s.since(0)); {
		n = len(s.since(0))
		select {
		case <-time.After(s.Silence / 3):
		case <-s.ctx.Done():
			s.err = s.ctx.Err()
		}
	}
}

// silence writes down whether a transaction came in the time in which a retry would.
func (s *scenario) silence(what string) {
	if s.err != nil {
		return
	}
	select {
	case <-time.After(s.Silence):
	case <-s.ctx.Done():
	}
	n := 0
	for _, g := range s.since(s.begun) {
		if g.transaction() != "" {
			n++
		}
	}
	s.note("%s: %d transactions", what, n)
}

// ping lets the homeserver ask whether the appservice is there.
func (s *scenario) ping() {
	s.status(http.StatusOK, "POST", "../v1/appservice/echo/ping")
}
