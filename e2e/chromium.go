package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

const pagePatience = time.Minute

// Chromium is a headless browser, driven by the DevTools protocol over two pipes. Only the test's goroutine calls its methods.
type Chromium struct {
	tb       testing.TB
	process  *Process
	commands io.WriteCloser
	messages chan devtools // closed when the browser is gone
	last     int
	session  string
	events   []devtools // of the page, since it was opened
}

// devtools is a message of the protocol: a command, its answer, or an event.
type devtools struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// chromiumRoot is where install.sh has unpacked the browser, as it has for Synapse.
func chromiumRoot(tb testing.TB) string {
	tb.Helper()
	root := os.Getenv("TRESTLE_TEST_CHROMIUM_ROOT")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			tb.Fatalf("looking for Chromium: %v", err)
		}
		root = filepath.Join(cache, "trestle", "chromium")
	}
	if _, err := os.Stat(filepath.Join(root, "usr/lib/chromium/chromium")); err != nil {
		tb.Fatalf("Chromium is not installed: %v; run e2e/install.sh chromium", err)
	}
	return root
}

// libraries are the folders below root that have shared libraries in them.
func libraries(tb testing.TB, root string) string {
	tb.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "usr/lib"), func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), ".so") {
			found[filepath.Dir(path)] = true
		}
		return err
	})
	if err != nil {
		tb.Fatalf("looking for Chromium's libraries: %v", err)
	}
	var folders []string
	for folder := range found {
		folders = append(folders, folder)
	}
	sort.Strings(folders)
	return strings.Join(folders, ":")
}

// StartPhone starts the browser with one page that has the size of a phone's.
func StartPhone(tb testing.TB, width, height int) *Chromium {
	tb.Helper()
	root, home := chromiumRoot(tb), tb.TempDir()
	fromUs, toBrowser, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	fromBrowser, toUs, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	// The sandbox needs user namespaces, and refuses root; what is opened here is the bridge's own.
	cmd := exec.Command(filepath.Join(root, "usr/lib/chromium/chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server", "--hide-scrollbars",
		"--remote-debugging-pipe", "--user-data-dir="+filepath.Join(home, "profile"), "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "XDG_DATA_HOME="+filepath.Join(root, "usr/share"), // for its fonts
		"LD_LIBRARY_PATH="+libraries(tb, root), "TZ=UTC", "LANG=C.UTF-8")
	cmd.ExtraFiles = []*os.File{fromUs, toUs} // its descriptors 3 and 4
	c := &Chromium{tb: tb, commands: toBrowser, messages: make(chan devtools, 1024)}
	c.process = startProcess(tb, "Chromium", filepath.Join(home, "chromium.log"), cmd)
	fromUs.Close()
	toUs.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.read(fromBrowser)
	}()
	tb.Cleanup(func() {
		c.commands.Close() // at the end of which it ends
		c.process.Wait(stopPatience)
		fromBrowser.Close()
		for range c.messages {
		}
		<-done
	})
	var target struct {
		ID string `json:"targetId"`
	}
	c.do("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		Session string `json:"sessionId"`
	}
	c.do("Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true}, &attached)
	c.session = attached.Session
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		c.do(domain+".enable", nil, nil)
	}
	c.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": true}, nil)
	return c
}

// read takes in what the browser says. Messages end with a NUL.
func (c *Chromium) read(from io.Reader) {
	defer close(c.messages)
	lines := bufio.NewReaderSize(from, 1<<20)
	for {
		data, err := lines.ReadBytes(0)
		var m devtools
		if json.Unmarshal(bytes.TrimSuffix(data, []byte{0}), &m) == nil && (m.ID != 0 || m.Method != "") {
			c.messages <- m
		}
		if err != nil {
			return
		}
	}
}

// next gives one message; events are kept.
func (c *Chromium) next(what string) devtools {
	c.tb.Helper()
	select {
	case m, ok := <-c.messages:
		if !ok {
			c.tb.Fatalf("Chromium ended before %s", what)
		}
		if m.Method != "" {
			c.events = append(c.events, m)
		}
		return m
	case <-time.After(pagePatience):
		c.tb.Fatalf("Chromium has not come to %s in %v", what, pagePatience)
		return devtools{}
	}
}

// do gives a command and waits for its answer.
func (c *Chromium) do(method string, params, into any) {
	c.tb.Helper()
	c.last++
	raw, err := json.Marshal(params)
	if err != nil {
		c.tb.Fatal(err)
	}
	m := devtools{ID: c.last, Session: c.session, Method: method, Params: raw}
	if params == nil {
		m.Params = nil
	}
	data, err := json.Marshal(m)
	if err != nil {
		c.tb.Fatal(err)
	}
	if _, err := c.commands.Write(append(data, 0)); err != nil {
		c.tb.Fatalf("telling Chromium %s: %v", method, err)
	}
	for {
		answer := c.next("the answer to " + method)
		if answer.ID != c.last {
			continue
		}
		if answer.Error != nil {
			c.tb.Fatalf("%s: %s", method, answer.Error.Message)
		}
		if into != nil {
			if err := json.Unmarshal(answer.Result, into); err != nil {
				c.tb.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}

// Visit is what the browser did to show a page.
type Visit struct {
	Requests   []string // URLs that were asked for, data: URLs left out
	Complaints []string // errors and warnings of the console, exceptions, and requests that failed
	Width      int      // CSS pixels of the content
	Screenshot []byte   // PNG
}

// Open opens a page, and returns when it and all its pictures are there.
func (c *Chromium) Open(url string) Visit {
	c.tb.Helper()
	c.events = nil
	c.do("Page.navigate", map[string]any{"url": url}, nil)
	for loaded := false; !loaded || c.waiting() > 0; {
		for _, e := range c.events {
			loaded = loaded || e.Method == "Page.loadEventFired"
		}
		if !loaded || c.waiting() > 0 {
			c.next("the end of loading")
		}
	}
	var metrics struct {
		Size struct {
			Width float64 `json:"width"`
		} `json:"cssContentSize"`
	}
	c.do("Page.getLayoutMetrics", nil, &metrics)
	var shot struct {
		Data string `json:"data"`
	}
	c.do("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	v := Visit{Width: int(metrics.Size.Width + 0.5)}
	var err error
	if v.Screenshot, err = base64.StdEncoding.DecodeString(shot.Data); err != nil {
		c.tb.Fatal(err)
	}
	for _, e := range c.events {
		switch e.Method {
		case "Network.requestWillBeSent":
			var p struct {
				Request struct {
					URL string `json:"url"`
				} `json:"request"`
			}
			if json.Unmarshal(e.Params, &p) == nil && !strings.HasPrefix(p.Request.URL, "data:") {
				v.Requests = append(v.Requests, p.Request.URL)
			}
		case "Network.responseReceived":
			var p struct {
				Response struct {
					URL    string `json:"url"`
					Status int    `json:"status"`
				} `json:"response"`
			}
			if json.Unmarshal(e.Params, &p) == nil && p.Response.Status >= 400 {
				v.Complaints = append(v.Complaints, fmt.Sprint(p.Response.Status, " ", p.Response.URL))
			}
		case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Network.loadingFailed":
			v.Complaints = append(v.Complaints, e.Method+" "+string(e.Params))
		}
	}
	return v
}

// waiting counts the requests of the page that have not ended.
func (c *Chromium) waiting() int {
	open := map[string]bool{}
	for _, e := range c.events {
		var p struct {
			ID string `json:"requestId"`
		}
		if json.Unmarshal(e.Params, &p) != nil {
			continue
		}
		switch e.Method {
		case "Network.requestWillBeSent":
			open[p.ID] = true
		case "Network.loadingFinished", "Network.loadingFailed":
			delete(open, p.ID)
		}
	}
	return len(open)
}
