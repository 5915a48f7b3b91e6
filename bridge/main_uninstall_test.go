package bridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// commandVariable makes the test binary be a bridge's program with these arguments, as JSON.
const commandVariable = "TRESTLE_BRIDGE_TEST_COMMAND"

// runCommand is the program of such a process.
func runCommand(arguments string) int {
	var args []string
	if err := json.Unmarshal([]byte(arguments), &args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return bridge.RunCommand(bridgetest.NewNetwork(), args, nil, os.Stdin, os.Stdout, os.Stderr)
}

// removal is a bridge with ghosts in a room, and the files that its command line reads.
type removal struct {
	*crossing
	config string
	ghosts []id.UserID
}

func newRemoval(t *testing.T, ghosts int, change func(*bridge.Config), options ...bridgetest.Option) *removal {
	t.Helper()
	if change == nil {
		change = func(*bridge.Config) {}
	}
	ctx, cancel := bridgetest.Timeout()
	t.Cleanup(cancel)
	r := &removal{crossing: &crossing{T: t, ctx: ctx, hs: bridgetest.NewHomeserver(t, options...), net: bridgetest.NewNetwork()}}
	r.alice = r.hs.User("alice")
	r.room = must(r.alice.CreateRoom(ctx, bridgetest.RoomOptions{}))(t)
	r.b = bridgetest.StartBridge(t, r.hs, r.net, change)
	r.ok(r.alice.Invite(ctx, r.room, r.b.BotID()))
	r.sees(bridgetest.Member(r.b.BotID(), "join"))
	r.plumb()
	for n := range ghosts {
		name := fmt.Sprintf("g%d", n)
		r.ok(r.net.Say(r.ctx, lobby, name, "hello from "+name))
		ghost := id.NewUserID("test_"+name, r.hs.Domain())
		r.ghosts = append(r.ghosts, ghost)
		r.sees(bridgetest.Message(ghost, "hello from "+name))
	}
	r.config = filepath.Join(t.TempDir(), "config.yaml")
	cfg := r.b.Config
	r.ok(os.WriteFile(r.config, fmt.Appendf(nil, `
homeserver: {address: %q, domain: %q}
appservice: {id: %q, listen: %q, address: %q, bot: %q, ghosts: %q, registration: %q}
database: %q
`, cfg.Homeserver.Address, cfg.Homeserver.Domain, cfg.Appservice.ID, cfg.Appservice.Listen, cfg.Appservice.Address, cfg.Appservice.Bot, cfg.Appservice.Ghosts,
		cfg.Appservice.Registration, cfg.Database), 0o600))
	return r
}

// command runs a subcommand, and gives what it says.
func (r *removal) command(args ...string) (status int, out string) {
	r.Helper()
	var both bytes.Buffer
	status = bridge.RunCommand(r.net, append(args, "-config", r.config), nil, nil, &both, &both)
	return status, both.String()
}

func (r *removal) uninstall(args ...string) (status int, out string) {
	r.Helper()
	return r.command(append([]string{"uninstall"}, args...)...)
}

// gone fails the test unless nothing is left of the bridge on the homeserver.
func (r *removal) gone() {
	r.Helper()
	members, err := r.alice.Members(r.ctx, r.room)
	r.ok(err)
	for _, user := range append(r.ghosts, r.b.BotID()) {
		if devices := r.hs.Devices(user); len(devices) != 0 {
			r.Errorf("%s still has the devices %v", user, devices)
		}
		if members[user] != "leave" {
			r.Errorf("%s is %q in the room", user, members[user])
		}
	}
}

// asBot makes a request with the bridge's token.
func (r *removal) asBot(method, path string, body any) error {
	registration, err := appservice.LoadRegistration(r.b.Config.Appservice.Registration)
	if err != nil {
		return err
	}
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(r.ctx, method, r.hs.URL()+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+registration.ASToken)
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

// deletions counts the requests that deleted a device.
func (r *removal) deletions() int {
	return len(r.hs.Requests(func(q bridgetest.Request) bool {
		return q.Method == http.MethodDelete && strings.Contains(q.Path, "/devices/")
	}))
}

func TestUninstall_OnEveryHomeserver_LeavesNothingThatAnAppserviceCanRemove(t *testing.T) {
	for _, personality := range bridgetest.Personalities() {
		t.Run(personality.String(), func(t *testing.T) {
			r := newRemoval(t, 3, nil, personality)
			if status, out := r.uninstall("-yes"); status != 1 || !strings.Contains(out, "the bridge runs: something listens on ") {
				t.Errorf("beside the running bridge: status %d\n%s", status, out)
			}
			r.b.Stop()
			before := len(r.hs.Requests(nil))
			status, out := r.uninstall()
			for _, text := range []string{"        4  users: the ghosts and the bot", "        4  memberships", "        1  portals", "Nothing was done."} {
				if status != 0 || !strings.Contains(out, text) {
					t.Errorf("status %d, and it does not say %q:\n%s", status, text, out)
				}
			}
			if personality == bridgetest.Synapse {
				out = regexp.MustCompile(`\d  transactions`).ReplaceAllString(out, "0  transactions") // as fast as it was stopped
				golden(t, filepath.Join("testdata", "uninstall", "dry-run.txt"), strings.ReplaceAll(out, r.hs.URL(), "http://localhost:8008"))
			}
			if after := len(r.hs.Requests(nil)); after != before {
				t.Errorf("a dry run makes %d requests", after-before)
			}
			status, out = r.uninstall("-yes")
			if status != 0 {
				t.Errorf("status %d", status)
			}
			s := &site{T: t, hs: r.hs, config: r.b.Config.Appservice.Registration, listen: r.b.Config.Appservice.Listen}
			out = strings.ReplaceAll(out, r.config, "/etc/trestle/config.yaml")
			golden(t, filepath.Join("testdata", "uninstall", strings.ToLower(personality.String())+".txt"), s.stable(out))
			r.gone()
			// Nothing is left to do.
			if status, out = r.uninstall("-yes"); status != 0 || !strings.Contains(out, "Removed 1 of 1 user from 0 memberships.") {
				t.Errorf("again: status %d\n%s", status, out)
			}
		})
	}
}

func TestUninstall_KilledHalfWay_GoesOnAndRepeatsNothingThatIsDone(t *testing.T) {
	const ghosts = 12
	r := newRemoval(t, ghosts, nil)
	r.b.Stop()
	cmd := exec.Command(must(os.Executable())(t))
	cmd.Env = append(os.Environ(), commandVariable+"="+string(must(json.Marshal([]string{"uninstall", "-yes", "-config", r.config}))(t)))
	cmd.Stderr = os.Stderr
	var mu sync.Mutex
	deleted := 0
	remove := r.hs.Intercept(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if q.Method == http.MethodDelete && strings.Contains(q.URL.Path, "/devices/") && cmd.Process != nil {
			if deleted++; deleted == ghosts/2 {
				_ = cmd.Process.Kill()
			}
		}
		return false
	})
	mu.Lock()
	err := cmd.Start()
	mu.Unlock()
	r.ok(err)
	if err := cmd.Wait(); err == nil {
		t.Fatal("it was not killed")
	}
	remove()
	first := r.deletions()
	status, out := r.uninstall("-yes")
	if status != 0 || strings.Contains(out, fmt.Sprintf("of %d users", ghosts+1)) {
		t.Errorf("status %d, and nothing was done before:\n%s", status, out)
	}
	r.gone()
	// Whoever was under way at the kill is done again: at most four, and they are at their last step.
	if again := r.deletions() - ghosts - 1; first < ghosts/2 || again > 4 {
		t.Errorf("%d of %d devices were deleted before the kill, and %d twice", first, ghosts, again)
	}
}

func TestUninstall_DropStore_DeletesTheDatabaseAfterEverythingElse(t *testing.T) {
	for name, database := range map[string]func(t *testing.T) func(*bridge.Config){
		"SQLite": func(*testing.T) func(*bridge.Config) { return nil },
		"PostgreSQL": func(t *testing.T) func(*bridge.Config) {
			uri := storetest.PostgresServer(t)(t)
			return func(c *bridge.Config) { c.Database = uri }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemoval(t, 1, database(t))
			r.b.Stop()
			if status, out := r.uninstall("-drop-store"); status != 2 || !strings.Contains(out, "write -yes -drop-store") {
				t.Errorf("status %d:\n%s", status, out)
			}
			status, out := r.uninstall("-yes", "-drop-store")
			if status != 0 || !strings.Contains(out, "The database is deleted.") {
				t.Errorf("status %d:\n%s", status, out)
			}
			r.gone()
			if v, err := store.Visit(r.ctx, r.b.Config.Database); err == nil {
				_ = v.Close()
				t.Error("the database is still there")
			}
		})
	}
}

// What the homeserver refuses of one user keeps nobody else.
func TestUninstall_UserWhoCannotBeRemoved_IsNamedAndTriedAgainByTheNext(t *testing.T) {
	r := newRemoval(t, 3, nil)
	r.b.Stop()
	remove := r.hs.Intercept(func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Query().Get("user_id") != string(r.ghosts[1]) || !strings.HasSuffix(q.URL.Path, "/leave") {
			return false
		}
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"errcode":"M_UNKNOWN","error":"out of order"}`)
		return true
	})
	status, out := r.uninstall("-yes")
	for _, text := range []string{"as " + string(r.ghosts[1]), "out of order", "1 user could not be removed", "the same command goes on where it was"} {
		if status != 1 || !strings.Contains(out, text) {
			t.Errorf("status %d, and it does not say %q:\n%s", status, text, out)
		}
	}
	if len(r.hs.Devices(r.ghosts[2])) != 0 {
		t.Error("the others were kept as well")
	}
	remove()
	if status, out := r.uninstall("-yes"); status != 0 {
		t.Errorf("status %d:\n%s", status, out)
	}
	r.gone()
}

// Rates are limited: what is refused is asked for again when the homeserver says, and nothing else is asked for twice.
func TestUninstall_HomeserverThatLimitsRates_IsAskedOnceMoreForEachRefusal(t *testing.T) {
	r := newRemoval(t, 3, nil)
	r.b.Stop()
	var mu sync.Mutex
	asked, refused := 0, 0
	r.hs.Intercept(func(w http.ResponseWriter, q *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasSuffix(q.URL.Path, "/leave") {
			return false
		}
		if asked++; refused == 3 {
			return false
		}
		refused++
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":150}`)
		return true
	})
	if status, out := r.uninstall("-yes"); status != 0 {
		t.Errorf("status %d:\n%s", status, out)
	}
	r.gone()
	mu.Lock()
	defer mu.Unlock()
	if asked != len(r.ghosts)+1+refused {
		t.Errorf("%d times somebody was to leave, of whom %d were refused", asked, refused)
	}
}

func TestUninstall_AliasOfTheBridge_GoesAndOthersStay(t *testing.T) {
	r := newRemoval(t, 1, nil)
	r.b.Stop()
	cfg := r.b.Config.Appservice // in which the bridge claims no aliases yet
	text := must(os.ReadFile(cfg.Registration))(t)
	claimed := strings.Replace(string(text), "aliases: []", "aliases: [{exclusive: true, regex: '^#test_.*'}]", 1)
	r.ok(os.WriteFile(cfg.Registration, []byte(claimed), 0o600))
	r.hs.RemoveAppService(cfg.ID)
	r.ok(r.hs.AddAppService(cfg.Registration))
	own, other := id.NewRoomAlias("test_lobby", r.hs.Domain()), id.NewRoomAlias("lobby", r.hs.Domain())
	put := func(alias id.RoomAlias, do func(path string, body any) error) {
		r.ok(do("/_matrix/client/v3/directory/room/"+strings.ReplaceAll(string(alias), "#", "%23"), map[string]any{"room_id": r.room}))
	}
	put(other, func(path string, body any) error { return r.alice.Do(r.ctx, http.MethodPut, path, body, nil) })
	put(own, func(path string, body any) error { return r.asBot(http.MethodPut, path, body) })
	if status, out := r.uninstall("-yes"); status != 0 || !strings.Contains(out, "Deleted 1 alias.") {
		t.Errorf("status %d:\n%s", status, out)
	}
	for alias, want := range map[id.RoomAlias]bool{own: false, other: true} {
		err := r.alice.Do(r.ctx, http.MethodGet, "/_matrix/client/v3/directory/room/"+strings.ReplaceAll(string(alias), "#", "%23"), nil, nil)
		if (err == nil) != want {
			t.Errorf("%s: %v", alias, err)
		}
	}
}

// A bridge on another machine, which the homeserver reaches in the place of this one.
func TestUninstall_BridgeThatRunsElsewhere_IsRefused(t *testing.T) {
	r := newRemoval(t, 1, nil)
	r.b.Stop()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }))
	defer elsewhere.Close()
	r.hs.SetAppServiceURL(r.b.Config.Appservice.ID, elsewhere.URL)
	status, out := r.uninstall("-yes")
	if status != 1 || !strings.Contains(out, "the bridge runs somewhere else: it answers the homeserver") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if len(r.hs.Devices(r.ghosts[0])) != 1 {
		t.Error("something was removed all the same")
	}
}

// The database is held although nothing listens: by a bridge with another address, say.
func TestUninstall_DatabaseThatIsHeld_IsRefused(t *testing.T) {
	r := newRemoval(t, 1, nil)
	r.b.Stop()
	s := must(store.Open(r.ctx, r.b.Config.Database, store.Options{}))(t)
	defer s.Close()
	if status, out := r.uninstall("-yes"); status != 1 || !strings.Contains(out, "the bridge runs: ") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if len(r.hs.Devices(r.ghosts[0])) != 1 {
		t.Error("something was removed all the same")
	}
}

func TestUninstall_HomeserverThatDoesNotKnowTheBridge_SaysSoAndForgetsNothing(t *testing.T) {
	r := newRemoval(t, 1, nil)
	r.b.Stop()
	r.hs.RemoveAppService(r.b.Config.Appservice.ID)
	if status, out := r.uninstall("-yes"); status != 1 || !strings.Contains(out, "FAIL  token ") {
		t.Errorf("status %d:\n%s", status, out)
	}
	if _, out := r.uninstall(); !strings.Contains(out, "        2  users") {
		t.Errorf("the database has forgotten somebody:\n%s", out)
	}
}
