package bridge_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/ports"
)

var (
	metricDocumented = regexp.MustCompile("(?m)`(trestle_(?:appservice|store|bridge)_[a-z_]+)`[^|\n]*\\|")
	metricServed     = regexp.MustCompile(`(?m)^# TYPE (trestle_(?:appservice|store|bridge)_[a-z_]+) (?:counter|gauge|histogram)$`)
	metricUsed       = regexp.MustCompile(`trestle_[a-z_]+`)
	metricSeries     = regexp.MustCompile(`(?m)^(trestle_[a-z_]+)(?:\{(.*)\})? `)
	listedTogether   = regexp.MustCompile("`(trestle_[a-z_]+)`")
)

// TestMetrics_ARunningBridge_HasWhatTheDocumentationNames also sees that alerts name nothing that there is not: an alert
// on a name that was misspelt never comes.
func TestMetrics_ARunningBridge_HasWhatTheDocumentationNames(t *testing.T) {
	text, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	address, release, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	b := bridgetest.StartBridge(t, bridgetest.NewHomeserver(t), bridgetest.NewNetwork(), func(cfg *bridge.Config) { cfg.Metrics.Listen = address })
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	scrape := fetch(t, "http://"+address+"/metrics", http.StatusOK)
	served := map[string]bool{}
	for _, m := range metricServed.FindAllStringSubmatch(scrape, -1) {
		served[m[1]] = true
	}
	table, alerts, _ := strings.Cut(string(text), "What is worth being woken up for")
	documented := map[string]bool{}
	for _, line := range strings.Split(table, "\n") {
		if metricDocumented.MatchString(line) {
			for _, m := range listedTogether.FindAllStringSubmatch(line, -1) {
				documented[m[1]] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if !served[name] {
			t.Errorf("%s is documented, and not served", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(served)) {
		if !documented[name] {
			t.Errorf("%s is served, and not documented", name)
		}
	}
	if len(served) < 15 {
		t.Errorf("only %d are served", len(served))
	}
	for _, name := range metricUsed.FindAllString(alerts, -1) {
		if !documented[name] && !documented[strings.TrimSuffix(name, "_count")] {
			t.Errorf("an alert uses %s, which there is not", name)
		}
	}
	series := map[string]int{}
	for _, m := range metricSeries.FindAllStringSubmatch(scrape, -1) {
		if series[m[1]]++; series[m[1]] == 50 {
			t.Errorf("%s has 50 series or more", m[1])
		}
		for _, id := range []string{"@", "!", "#", "$", b.Config.Homeserver.Domain} {
			if strings.Contains(m[2], id) {
				t.Errorf("%s has an identifier in a label: %s", m[1], m[2])
			}
		}
	}
	for _, check := range []string{"running", "store", "backlog", "network"} {
		if !strings.Contains(scrape, `trestle_bridge_check_ok{check="`+check+`"} 1`) {
			t.Errorf("the check %s is not well", check)
		}
	}
	fetch(t, "http://"+address+"/healthz", http.StatusOK)
}

func TestHealth_BeforeTheBridgeIsReady_IsAnsweredAlready(t *testing.T) {
	address, release, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	network := &slowNetwork{bridgetest.NewNetwork(), make(chan struct{})}
	looked := make(chan string, 1)
	go func() {
		defer close(network.gate)
		looked <- fetch(t, "http://"+address+"/readyz", http.StatusServiceUnavailable)
	}()
	bridgetest.StartBridge(t, bridgetest.NewHomeserver(t), network, func(cfg *bridge.Config) { cfg.Metrics.Listen = address })
	if body := <-looked; !strings.Contains(body, "it is starting") || !strings.Contains(body, "the session is not open yet") {
		t.Error(body)
	}
}

// slowNetwork opens its session when it is let.
type slowNetwork struct {
	*bridgetest.Network
	gate chan struct{}
}

func (n *slowNetwork) Open(ctx context.Context, login *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	<-n.gate
	return n.Network.Open(ctx, login, sink)
}

// fetch gets a page, as soon as somebody answers there.
func fetch(t *testing.T, url string, status int) string {
	t.Helper()
	for {
		response, err := http.Get(url)
		if err != nil {
			if t.Context().Err() != nil {
				t.Error(err)
				return ""
			}
			time.Sleep(time.Millisecond) // nobody listens yet
			continue
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != status {
			t.Errorf("%s: %s %v\n%s", url, response.Status, err, body)
		}
		return string(body)
	}
}
