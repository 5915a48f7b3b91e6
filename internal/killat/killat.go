// Package killat runs a test's child process until it has done its work, or kills it, as kill -9 does, at one of its requests
// to a homeserver. It is for tests.
package killat

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// Point is a request at which the process is killed. The zero Point lets the process do its work to the end.
type Point struct {
	method, path string
	before       bool
}

// Before is when a request has come whose path matches a regular expression, and it is not done yet.
func Before(method, path string) Point { return Point{method, path, true} }

// After is when the request is done, and its answer is on the way.
func After(method, path string) Point { return Point{method, path, false} }

func (p Point) String() string {
	if p.before {
		return "before " + p.method + p.path
	}
	return "after " + p.method + p.path
}

// done is what a child process says when its work is done.
const done = "done"

// Done is called by the child process when its work is done. It returns when nobody is there any more who would kill it.
func Done() {
	fmt.Println(done)
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// Test runs a test of this program in a child process, which finds job, as JSON, in the variable of its environment. It says
// whether the work was done; the process is dead in any case.
func Test(t testing.TB, name, variable string, job any, hs *bridgetest.Homeserver, p Point) bool {
	t.Helper()
	env, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env, cmd.Stderr = append(os.Environ(), variable+"="+string(env)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{}, 1)
	if p.method != "" {
		defer intercept(t, hs, p, reached)()
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	said := make(chan bool, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		said <- strings.TrimSpace(line) == done
	}()
	select {
	case <-reached:
		_ = cmd.Process.Kill()
		<-said
		return false
	case worked := <-said:
		_ = cmd.Process.Kill()
		return worked
	}
}

// forwarded marks a request that was intercepted, and is sent again so that it has its effect.
const forwarded = "Trestle-Test-Forwarded"

func intercept(t testing.TB, hs *bridgetest.Homeserver, p Point, reached chan<- struct{}) (remove func()) {
	path := regexp.MustCompile(p.path)
	return hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != p.method || !path.MatchString(r.URL.Path) || r.Header.Get(forwarded) != "" {
			return false
		}
		if !p.before {
			if err := forward(hs, r); err != nil {
				t.Error(err)
			}
		}
		_, _ = io.Copy(io.Discard, r.Body) // net/http sees the end of a connection only behind the body
		select {
		case reached <- struct{}{}:
		default:
		}
		<-r.Context().Done() // the process is dead, and its connection with it
		return true
	})
}

func forward(hs *bridgetest.Homeserver, r *http.Request) error {
	inner, err := http.NewRequest(r.Method, hs.URL()+r.URL.RequestURI(), r.Body)
	if err != nil {
		return err
	}
	inner.Header.Set("Authorization", r.Header.Get("Authorization"))
	inner.Header.Set(forwarded, "1")
	resp, err := http.DefaultClient.Do(inner)
	if err != nil {
		return err
	}
	http.DefaultClient.CloseIdleConnections()
	return resp.Body.Close()
}
