//go:build goolm

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
	"github.com/trestle-bridge/trestle/internal/olmclient"
	"github.com/trestle-bridge/trestle/store"
)

const (
	// preparedGhosts is how many ghosts get their keys at once.
	preparedGhosts = 500
	// preparedRooms is how many rooms they are in. One room alone would be joined by one after the other.
	preparedRooms = 4
	// preparedPatience is for each of the things that all of them do, when 120 speak.
	preparedPatience = 10 * time.Minute
)

// preparedSpeakers is how many of the ghosts speak at once then, each of which needs a one-time key of everybody's, and has its turn: PREPARED_SPEAKERS, or 120.
func preparedSpeakers(t *testing.T) int {
	t.Helper()
	speakers := 120
	if value := os.Getenv("PREPARED_SPEAKERS"); value != "" {
		var err error
		if speakers, err = strconv.Atoi(value); err != nil || speakers < 120 || speakers > preparedGhosts {
			t.Fatalf("PREPARED_SPEAKERS is %q, and has to be a number from 120 to %d", value, preparedGhosts)
		}
	}
	return speakers
}

// secretCrowd is the framework's Matrix side with keys, on a real Synapse. It hands what is about keys to its Crypto.
type secretCrowd struct {
	t      *testing.T
	as     *appservice.AppService
	crypto *crypto.Crypto
	claims claimed
}

func (c *secretCrowd) HandleEvent(ctx context.Context, ev *appservice.Event) ([]appservice.Effect, error) {
	if ev.Kind != store.KindPDU {
		return nil, c.crypto.HandleKeys(ctx, ev)
	}
	return nil, nil
}
func (*secretCrowd) HandleEphemeral(context.Context, *appservice.Ephemeral) {}

// claimed counts the one-time keys that were asked for, by device.
type claimed struct {
	base http.RoundTripper
	mu   sync.Mutex
	of   map[string]int
}

func (c *claimed) RoundTrip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Path, "/keys/claim") && req.Body != nil {
		body, err := io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
		var wanted struct {
			Keys map[id.UserID]map[id.DeviceID]string `json:"one_time_keys"`
		}
		if err := json.Unmarshal(body, &wanted); err != nil {
			return nil, err
		}
		c.mu.Lock()
		for user, devices := range wanted.Keys {
			for device := range devices {
				c.of[fmt.Sprint(user, " ", device)]++
			}
		}
		c.mu.Unlock()
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	return c.base.RoundTrip(req)
}

func newSecretCrowd(t *testing.T) (*secretCrowd, *Synapse) {
	t.Helper()
	c := &secretCrowd{t: t, claims: claimed{base: &http.Transport{MaxIdleConnsPerHost: 48, MaxConnsPerHost: 48}, of: map[string]int{}}}
	var serve atomic.Pointer[appservice.AppService]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve.Load().ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	reg, err := appservice.Generate(appservice.GenerateOptions{ID: "crowd", URL: server.URL, Domain: DefaultDomain, SenderLocalpart: "crowdbot", GhostPrefix: "crowd_"})
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/registration.yaml"
	if err := reg.Save(file); err != nil {
		t.Fatal(err)
	}
	port := FreePort(t)
	db, err := store.Open(t.Context(), "sqlite:"+t.TempDir()+"/bridge.db", store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	c.as, err = appservice.New(appservice.Config{
		Registration: reg, HomeserverURL: "http://" + loopback(port), ServerName: DefaultDomain, Store: db, Handler: c, Log: zerolog.Nop(),
		HTTPClient: &http.Client{Transport: &c.claims},
	})
	if err != nil {
		t.Fatal(err)
	}
	serve.Store(c.as)
	c.crypto, err = crypto.New(t.Context(), crypto.Options{Store: db, AS: c.as, PickleKey: []byte("of the tests, for the tests"), Send: crypto.TrustCrossSigned})
	if err != nil {
		t.Fatal(err)
	}
	synapse := StartSynapse(t, SynapseOptions{Port: port, Registrations: []string{file}})
	if err := c.as.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.as.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := c.crypto.Close(); err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, synapse
}

func (c *secretCrowd) ghost(n int) id.UserID {
	return id.NewUserID(fmt.Sprint("crowd_", n), DefaultDomain)
}

// each has so many ghosts do something at once. Who has to wait comes again when it is told to, as the outbox of the bridge does.
func (c *secretCrowd) each(what string, many int, do func(ctx context.Context, n int) error) {
	c.t.Helper()
	turns := time.Duration(preparedSpeakers(c.t)-120) * time.Second // one after the other
	ctx, cancel := context.WithTimeout(c.t.Context(), preparedPatience+turns)
	defer cancel()
	began := time.Now()
	var all sync.WaitGroup
	var waits, claims atomic.Int64
	for n := range many {
		all.Go(func() {
			for {
				err := do(ctx, n)
				if wait := max(appservice.RetryAfter(err), appservice.LaterWait(err)); wait > 0 && ctx.Err() == nil {
					waits.Add(1)
					if errors.Is(err, crypto.ErrClaims) {
						claims.Add(1)
					}
					time.Sleep(wait)
					continue
				}
				if err != nil {
					c.t.Errorf("%s of %s: %v", what, c.ghost(n), err)
				}
				return
			}
		})
	}
	all.Wait()
	c.t.Logf("%s of %d ghosts: %s; %d times somebody had to wait, %d of them for a one-time key", what, many,
		time.Since(began).Round(time.Millisecond), waits.Load(), claims.Load())
}

func TestCrowd_500GhostsPreparedAtOnceAnd120Speaking_DrainNobodysOneTimeKeys(t *testing.T) {
	speakers := preparedSpeakers(t)
	c, synapse := newSecretCrowd(t)
	anna, carol := synapse.Strict("anna"), synapse.Strict("carol")
	var rooms [preparedRooms]id.RoomID
	for i := range rooms {
		rooms[i] = anna.CreateRoom(fmt.Sprint("crowded room ", i))
		carol.Join(rooms[i])
	}
	room := func(n int) id.RoomID { return rooms[n%preparedRooms] }
	words := func(n int) string { return fmt.Sprint("I am ", n) }
	leastOfAnna, leastOfCarol := watchOneTimeKeys(t, anna), watchOneTimeKeys(t, carol)
	c.each("the keys", preparedGhosts, func(ctx context.Context, n int) error { return c.crypto.Prepare(ctx, c.ghost(n)) })
	if taken := len(c.claims.of); taken != 0 {
		t.Errorf("to prepare ghosts has cost one-time keys of %v", c.claims.of)
	}
	c.each("the joining", speakers, func(ctx context.Context, n int) error { return c.as.Ghost(c.ghost(n)).EnsureJoined(ctx, room(n)) })
	c.each("the words", speakers, func(ctx context.Context, n int) error {
		text, _ := json.Marshal(map[string]string{"msgtype": "m.text", "body": words(n)})
		sealed, err := c.crypto.Seal(ctx, crypto.Sealing{Room: room(n), Machine: c.ghost(n), Type: event.EventMessage.Type, Content: text})
		if err != nil {
			return err
		}
		_, err = c.as.Ghost(c.ghost(n)).SendMessage(ctx, room(n), event.EventEncrypted, sealed, fmt.Sprint("txn", n))
		return err
	})
	for _, reader := range []*olmclient.Client{anna, carol} {
		for n := range speakers {
			reader.WaitFor(fmt.Sprint("the words of ", c.ghost(n)), olmclient.Text(room(n), words(n)))
			keys := reader.SenderKeys(c.ghost(n))
			if len(keys) == 0 || len(keys[0].Signatures[c.ghost(n)]) != 2 {
				t.Errorf("%s says to %s of its device %+v", c.ghost(n), reader.User, keys)
			}
		}
		for i := range rooms {
			reader.Clean(rooms[i])
		}
	}
	// The people's devices, and the bot's or a ghost's that reads each room.
	t.Logf("one-time keys that were claimed, of %d devices: %v", len(c.claims.of), slices.Sorted(maps.Values(c.claims.of)))
	for _, reader := range []*olmclient.Client{anna, carol} {
		if n := c.claims.of[fmt.Sprint(reader.User, " ", reader.Device)]; n != speakers {
			t.Errorf("of %s %d one-time keys were claimed, by %d ghosts", reader.User, n, speakers)
		}
	}
	for user, least := range map[id.UserID]int{anna.User: leastOfAnna(), carol.User: leastOfCarol()} {
		if t.Logf("%s never had fewer than %d one-time keys", user, least); least == 0 {
			t.Errorf("%s had no one-time key left for others", user)
		}
	}
}

// watchOneTimeKeys asks the homeserver again and again how many one-time keys it holds for a client, and gives the least.
func watchOneTimeKeys(t *testing.T, client *olmclient.Client) (least func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		least := 1 << 30
		for ctx.Err() == nil {
			if n, err := client.OneTimeKeys(ctx); err == nil {
				least = min(least, n)
			}
			time.Sleep(100 * time.Millisecond)
		}
		done <- least
	}()
	return func() int {
		cancel()
		return <-done
	}
}
