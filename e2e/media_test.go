package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

const (
	authenticated = "/_matrix/client/v1/media/download"
	legacy        = "/_matrix/media/v3/download"
)

// fetched is what curl got.
type fetched struct {
	exit    int
	status  string
	headers map[string]string // names in lower case
	body    []byte
}

// curl opens a link as somebody at a terminal does.
func curl(t *testing.T, link string, options ...string) fetched {
	t.Helper()
	program, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("this test needs curl: apt-get install curl")
	}
	dir := t.TempDir()
	head, body := filepath.Join(dir, "head"), filepath.Join(dir, "body")
	cmd := exec.CommandContext(t.Context(), program, append([]string{"-sS", "-D", head, "-o", body, link}, options...)...)
	said, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("running curl: %v: %s", err, said)
	}
	f := fetched{exit: cmd.ProcessState.ExitCode(), headers: map[string]string{}}
	text, err := os.ReadFile(head)
	if err != nil {
		t.Fatalf("curl %q: %v: %s", options, err, said)
	}
	lines := strings.Split(string(text), "\r\n")
	if fields := strings.Fields(lines[0]); len(fields) > 1 {
		f.status = fields[1]
	}
	for _, line := range lines[1:] {
		if name, value, ok := strings.Cut(line, ": "); ok {
			f.headers[strings.ToLower(name)] = value
		}
	}
	f.body, _ = os.ReadFile(body) // there is none where there is no body
	return f
}

// picture has alice post a picture, and gives its media ID and the link that IRC got. With fake there is no such file on Synapse.
func (c *Crossing) picture(t *testing.T, name string, data []byte, fake bool) (mediaID, link string) {
	t.Helper()
	uri := id.ContentURI{Homeserver: c.Synapse.Domain, FileID: "NeverWasUploadedAnywhere"}
	if !fake {
		uri = c.Alice.Upload(data, "image/png", name)
	}
	c.Alice.Send(c.Room, map[string]any{
		"msgtype": "m.image", "body": name, "url": uri.String(), "info": map[string]any{"mimetype": "image/png", "size": len(data)},
	})
	line := c.ToIRC("alice", name)
	return uri.FileID, anyLink.FindString(line.Params[1])
}

// The links of a running bridge, opened with curl, while Synapse is well, ill and away.
func TestMedia_LinksOfTheBridge_OpenedWithCurl(t *testing.T) {
	c := NewCrossing(t, CrossingOptions{Faults: true})
	photo := testPhoto(t)
	token := c.Bridge.Token()

	// Slow is slow whatever else happens, so it goes on beside the rest.
	slowID, slow := c.picture(t, "slow.png", photo, false)
	c.Faults.Set(slowID, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	var waiting sync.WaitGroup
	var late fetched
	waiting.Go(func() { late = curl(t, slow) })

	mediaID, link := c.picture(t, "well.png", photo, false)
	t.Run("a terminal", func(t *testing.T) {
		got := curl(t, link)
		if got.exit != 0 || got.status != "200" || got.headers["content-type"] != "image/png" || !bytes.Equal(got.body, photo) {
			t.Errorf("curl ended with %d: status %s, type %s, %d bytes of %d", got.exit, got.status, got.headers["content-type"], len(got.body), len(photo))
		}
		if asked := c.Faults.Asked(mediaID); !slices.Equal(asked, []string{"GET " + authenticated + " with a token"}) {
			t.Errorf("Synapse was asked %q", asked)
		}
	})
	t.Run("a link previewer", func(t *testing.T) {
		head := curl(t, link, "--head")
		if head.status != "200" || head.headers["content-length"] != fmt.Sprint(len(photo)) || head.headers["accept-ranges"] != "bytes" ||
			head.headers["content-type"] != "image/png" {
			t.Errorf("HEAD says %s %v", head.status, head.headers)
		}
		part := curl(t, link, "--range", "1000-1511")
		if part.status != "206" || part.headers["content-range"] != fmt.Sprintf("bytes 1000-1511/%d", len(photo)) || !bytes.Equal(part.body, photo[1000:1512]) {
			t.Errorf("the range is %s, %s, %d bytes", part.status, part.headers["content-range"], len(part.body))
		}
		if part.headers["etag"] == "" || part.headers["etag"] != head.headers["etag"] {
			t.Errorf("the tags are %q and %q", head.headers["etag"], part.headers["etag"])
		}
		if same := curl(t, link, "--header", "If-None-Match: "+head.headers["etag"]); same.status != "304" || len(same.body) != 0 {
			t.Errorf("the same again is %s with %d bytes", same.status, len(same.body))
		}
	})

	for _, fault := range []struct {
		name   string
		answer http.HandlerFunc // nil: Synapse has no such file
		status string
	}{
		{"missing", nil, "404"},
		{"refused", status(http.StatusForbidden, "M_FORBIDDEN"), "502"},
		{"broken", status(http.StatusInternalServerError, "M_UNKNOWN"), "502"},
	} {
		t.Run("Synapse answers with an error: "+fault.name, func(t *testing.T) {
			mediaID, link := c.picture(t, fault.name+".png", photo, fault.answer == nil)
			if fault.answer != nil {
				c.Faults.Set(mediaID, fault.answer)
			}
			got := curl(t, link)
			if got.status != fault.status || bytes.Contains(got.body, []byte("M_")) || bytes.Contains(got.body, []byte("of the homeserver")) {
				t.Errorf("the link answers %s: %s", got.status, got.body)
			}
		})
	}
	t.Run("Synapse sends less than it says", func(t *testing.T) {
		mediaID, link := c.picture(t, "short.png", photo, false)
		c.Faults.Set(mediaID, lie(photo[:len(photo)/2], len(photo)))
		if got := curl(t, link); got.exit == 0 {
			t.Errorf("curl takes %d bytes of %d for the whole", len(got.body), len(photo))
		}
	})
	t.Run("Synapse sends more than it says", func(t *testing.T) {
		mediaID, link := c.picture(t, "long.png", photo, false)
		c.Faults.Set(mediaID, lie(photo, len(photo)/2))
		if got := curl(t, link); got.headers["content-length"] != fmt.Sprint(len(photo)/2) || !bytes.Equal(got.body, photo[:len(photo)/2]) {
			t.Errorf("the link gives %s bytes, and %d", got.headers["content-length"], len(got.body))
		}
	})
	t.Run("Synapse redirects to this machine", func(t *testing.T) {
		trap := startTrap(t)
		mediaID, link := c.picture(t, "elsewhere.png", photo, false)
		c.Faults.Set(mediaID, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, trap.URL, http.StatusTemporaryRedirect)
		})
		if got := curl(t, link); got.status != "502" || trap.Hits() != 0 {
			t.Errorf("the link answers %s, and the other host was asked %d times", got.status, trap.Hits())
		}
	})
	t.Run("Synapse is away", func(t *testing.T) {
		c.Synapse.Stop()
		if got := curl(t, link); got.status != "502" {
			t.Errorf("the link answers %s", got.status)
		}
		c.Synapse.Start()
		if got := curl(t, link); got.status != "200" || !bytes.Equal(got.body, photo) {
			t.Errorf("when it is back, the link answers %s with %d bytes", got.status, len(got.body))
		}
	})
	t.Run("Synapse is old", func(t *testing.T) {
		mediaID, link := c.picture(t, "old.png", photo, false)
		c.Faults.Set(mediaID, func(w http.ResponseWriter, r *http.Request) {
			rest, isLegacy := strings.CutPrefix(r.URL.Path, legacy)
			if !isLegacy {
				status(http.StatusNotFound, "M_UNRECOGNIZED")(w, r)
				return
			}
			r.URL.Path = authenticated + rest // where the Synapse of today has it
			c.Faults.Pass(w, r)
		})
		if got := curl(t, link); got.status != "200" || !bytes.Equal(got.body, photo) {
			t.Errorf("the link answers %s with %d bytes", got.status, len(got.body))
		}
		if asked := c.Faults.Asked(mediaID); len(asked) != 2 || !strings.HasPrefix(asked[1], "GET "+legacy) {
			t.Errorf("Synapse was asked %q", asked)
		}
	})

	waiting.Wait()
	if late.status != "504" {
		t.Errorf("of a Synapse that never answers the link says %s", late.status)
	}
	if log, err := os.ReadFile(filepath.Join(c.Bridge.dir, "bridge.log")); err != nil || bytes.Contains(log, []byte(token)) ||
		bytes.Contains(log, []byte(strings.Split(link, "/")[4])) {
		t.Errorf("the token or a link is in the bridge's log, or there is none: %v", err)
	}
}

// A redirect that may be followed leads to the file, and whoever has it there learns nothing.
func TestMedia_RedirectToAnotherHost_DoesNotSeeTheToken(t *testing.T) {
	port := FreePort(t)
	b := NewBridge(t, BridgeOptions{SynapsePort: port, IRC: StartInspIRCd(t)})
	s := StartSynapse(t, SynapseOptions{Port: port, Registrations: []string{b.Registration}})
	photo := testPhoto(t)
	uri := s.User("alice").Upload(photo, "image/png", "photo.png")
	faults := StartFaults(t, loopback(port))

	var mu sync.Mutex
	var asked []*http.Request
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r)
		mu.Unlock()
		// The other host has the file from Synapse, which it asks with a token that it has anyway.
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.Token())
		r.URL.Path = authenticated + r.URL.Path
		faults.Pass(w, r)
	}))
	t.Cleanup(other.Close)
	faults.Set(uri.FileID, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+strings.TrimPrefix(r.URL.Path, authenticated), http.StatusTemporaryRedirect)
	})

	keys, err := proxy.StaticKeys(store.MediaKey{ID: 1, Secret: bytes.Repeat([]byte("s"), 32), Created: time.Unix(1, 0)})
	if err != nil {
		t.Fatal(err)
	}
	server, err := proxy.NewServer(proxy.ServerConfig{
		HomeserverURL: faults.URL, Token: b.Token(), Keys: keys, RedirectHTTP: true, RedirectNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	front := httptest.NewServer(server)
	t.Cleanup(front.Close)
	signer, err := proxy.NewSigner(context.Background(), proxy.SignerConfig{PublicURL: front.URL, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	link, err := signer.SelfContained(proxy.Media{URI: uri, Name: "photo.png", MIME: "image/png", Room: "!room:example.org", Event: "$event"})
	if err != nil {
		t.Fatal(err)
	}
	if got := curl(t, link); got.status != "200" || !bytes.Equal(got.body, photo) {
		t.Errorf("the link answers %s with %d bytes of %d", got.status, len(got.body), len(photo))
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != 1 {
		t.Fatalf("the other host was asked %d times", len(asked))
	}
	if text := fmt.Sprint(asked[0].Header, asked[0].URL); strings.Contains(text, b.Token()) || asked[0].Header.Get("Authorization") != "" {
		t.Error("the other host was told the token")
	}
}
