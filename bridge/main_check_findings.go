package bridge

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/trestle-bridge/trestle/appservice"
)

// The verdicts of a [finding].
const (
	verdictOK   = "OK"
	verdictWarn = "WARN" // the bridge works, perhaps without something; or it could not be found out
	verdictFail = "FAIL" // the bridge does not work like this
)

// finding is one thing that check has found out, and what is to be done about it.
type finding struct {
	Verdict string `json:"verdict"` // OK, WARN or FAIL
	About   string `json:"about"`
	Text    string `json:"text"`
	Mend    string `json:"mend,omitempty"`
}

// findings are what check prints, as they come: one line each, and one below it for the mend.
type findings struct {
	out    io.Writer
	asJSON bool // one object a line
	failed bool
}

func (f *findings) ok(about, format string, args ...any) {
	f.add(finding{verdictOK, about, fmt.Sprintf(format, args...), ""})
}

func (f *findings) warn(about, mend, format string, args ...any) {
	f.add(finding{verdictWarn, about, fmt.Sprintf(format, args...), mend})
}

func (f *findings) fail(about, mend, format string, args ...any) {
	f.add(finding{verdictFail, about, fmt.Sprintf(format, args...), mend})
}

// mistake is an error in one of the files, of which many know their mend.
func (f *findings) mistake(about string, err error) {
	if m, ok := err.(appservice.Mistake); ok {
		text, _ := strings.CutSuffix(m.Error(), "; "+m.Mend)
		f.fail(about, m.Mend, "%s", text)
		return
	}
	f.fail(about, "", "%v", err)
}

func (f *findings) add(found finding) {
	f.failed = f.failed || found.Verdict == verdictFail
	if f.asJSON {
		line, _ := json.Marshal(found) // strings cannot fail
		fmt.Fprintf(f.out, "%s\n", line)
		return
	}
	fmt.Fprintf(f.out, "%-5s %-14s%s\n", found.Verdict, found.About, found.Text)
	if found.Mend != "" {
		fmt.Fprintf(f.out, "%-5s %-14s→ %s\n", "", "", found.Mend)
	}
}
