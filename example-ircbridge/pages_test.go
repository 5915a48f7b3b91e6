package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

var anyLink = regexp.MustCompile(`http://\S+$`)

// opens gives what curl shows of a link.
func (c *crossing) opens(link string) (status int, body string) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, link, nil)
	c.ok(err)
	resp, err := http.DefaultClient.Do(r)
	c.ok(err)
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	c.ok(err)
	return resp.StatusCode, string(data)
}

// numbered is a text of many lines.
func numbered(what string) string {
	var lines []string
	for i := range 12 {
		lines = append(lines, fmt.Sprintf("%s %d", what, i+1))
	}
	return strings.Join(lines, "\n")
}

func TestProxy21_LongTextOnIRC_ItsReplyAndItsEdit_HaveAPageThatDiesWithTheMessage(t *testing.T) {
	c := newCrossing(t)
	sent, err := c.alice.SendText(c.ctx, c.room, numbered("first"))
	c.ok(err)
	c.reads("<alice> first 1")
	c.reads("<alice> first 2")
	link := anyLink.FindString(c.reads("<alice> … (10 more lines): "))
	shows := func(link, want string) {
		t.Helper()
		if status, body := c.opens(link); status != 200 || body != want+"\n" {
			t.Errorf("the page says %d %q", status, body)
		}
	}
	shows(link, numbered("first"))

	_, err = c.alice.SendReply(c.ctx, c.room, sent, numbered("answer"))
	c.ok(err)
	c.reads("<alice> alice: answer 1")
	reply := anyLink.FindString(c.reads("more lines): "))
	shows(reply, numbered("answer"))

	_, err = c.alice.SendEdit(c.ctx, c.room, sent, numbered("second"))
	c.ok(err)
	c.reads("<alice> * second 1")
	if edited := anyLink.FindString(c.reads("more lines): ")); edited != link {
		t.Errorf("the edit has the link %s, the message %s", edited, link)
	}
	shows(link, numbered("second"))

	_, err = c.alice.Redact(c.ctx, c.room, sent, "")
	c.ok(err)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if status, _ := c.opens(link); status == http.StatusGone {
			break
		}
	}
	if status, body := c.opens(link); status != http.StatusGone || strings.Contains(body, "second") {
		t.Errorf("after the redaction it says %d %q", status, body)
	}
	shows(reply, numbered("answer"))
}
