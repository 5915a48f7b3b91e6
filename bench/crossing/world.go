package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
)

// within bounds every wait.
const within = 2 * time.Minute

// world is a homeserver, a bridge and a network in this process.
type world struct {
	dir      string
	hs       *bridgetest.Homeserver
	alice    *bridgetest.User
	cfg      *bridge.Config
	token    string // of the appservice
	hsToken  string
	rooms    []id.RoomID
	channels []string

	bridge *bridge.Bridge
	stop   context.CancelFunc
	ended  chan error

	mu   sync.Mutex
	sink bridge.Sink
	sent map[string]time.Time // when Send was called, by the text
}

// newWorld makes so many rooms, each plumbed to a channel. The bridge is not started.
func newWorld(ctx context.Context, parent string, rooms int) (w *world, err error) {
	w = &world{sent: map[string]time.Time{}}
	if w.dir, err = os.MkdirTemp(parent, "crossing-"); err != nil {
		return nil, err
	}
	if w.hs, err = bridgetest.StartHomeserver(bridgetest.Options{}); err != nil {
		return nil, err
	}
	w.alice = w.hs.User("alice")
	w.cfg = bridge.DefaultConfig(w.Info())
	w.cfg.Homeserver = bridge.HomeserverConfig{Address: w.hs.URL(), Domain: w.hs.Domain()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.cfg.Appservice.Listen = l.Addr().String()
	if err = l.Close(); err != nil {
		return nil, err
	}
	w.cfg.Appservice.Address = "http://" + w.cfg.Appservice.Listen
	w.cfg.Appservice.Registration = filepath.Join(w.dir, "registration.yaml")
	w.cfg.Database = "sqlite:" + filepath.Join(w.dir, "bridge.db")
	registration, err := appservice.Generate(appservice.GenerateOptions{
		ID: w.cfg.Appservice.ID, URL: w.cfg.Appservice.Address, Domain: w.hs.Domain(),
		SenderLocalpart: w.cfg.Appservice.Bot, GhostPrefix: w.cfg.Appservice.Ghosts,
	})
	if err != nil {
		return nil, err
	}
	w.token, w.hsToken = registration.ASToken, registration.HSToken
	if err = registration.Save(w.cfg.Appservice.Registration); err == nil {
		err = w.hs.AddAppService(w.cfg.Appservice.Registration)
	}
	for i := range rooms {
		var room id.RoomID
		if err == nil {
			room, err = w.alice.CreateRoom(ctx, bridgetest.RoomOptions{Preset: "public_chat", Invite: []id.UserID{w.bot()}})
		}
		w.rooms, w.channels = append(w.rooms, room), append(w.channels, fmt.Sprintf("channel%d", i))
		w.cfg.Bridge.Plumb = append(w.cfg.Bridge.Plumb, bridge.Plumb{Room: string(room), Channel: w.channels[i]})
	}
	return w, err
}

func (w *world) bot() id.UserID { return id.NewUserID(w.cfg.Appservice.Bot, w.hs.Domain()) }

// start starts the bridge, and gives how long it took until it was ready.
func (w *world) start() (took time.Duration, err error) {
	if w.bridge, err = bridge.New(w.cfg, w, zerolog.Nop()); err != nil {
		return 0, err
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop, w.ended = stop, make(chan error, 1)
	began := time.Now()
	go func() { w.ended <- w.bridge.Run(ctx) }()
	select {
	case <-w.bridge.Ready():
		return time.Since(began), nil
	case err = <-w.ended:
		w.ended <- err
		return 0, fmt.Errorf("the bridge did not start: %w", err)
	case <-time.After(within):
		return 0, fmt.Errorf("the bridge was not ready within %v", within)
	}
}

func (w *world) end() {
	if w.stop != nil {
		w.stop()
		<-w.ended
		w.stop = nil
	}
}

func (w *world) close() {
	w.end()
	_ = w.hs.Close()
	_ = os.RemoveAll(w.dir)
}

// joined waits until the bot is in every room, and its portals are there.
func (w *world) joined(ctx context.Context) error {
	for _, room := range w.rooms {
		if _, err := w.alice.WaitFor(ctx, room, bridgetest.Member(w.bot(), "join")); err != nil {
			return err
		}
	}
	for _, channel := range w.channels {
		for {
			err := w.deliver(ctx, &bridge.Incoming{Channel: channel, Sender: person("bob"), Join: &bridge.Join{}})
			if err == nil {
				break
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return err
			}
		}
	}
	return nil
}

func person(name string) bridge.RemoteUser { return bridge.RemoteUser{ID: name, Name: name} }

func (w *world) deliver(ctx context.Context, in *bridge.Incoming) error {
	w.mu.Lock()
	sink := w.sink
	w.mu.Unlock()
	return sink.Deliver(ctx, in)
}

func text(channel, who, body string) *bridge.Incoming {
	return &bridge.Incoming{Channel: channel, Sender: person(who), Text: &bridge.Text{Kind: bridge.KindText, Body: body}}
}

// Info, Open, Send and Close are the network.
func (w *world) Info() bridge.Info {
	return bridge.Info{ID: "bench", Name: "Bench", Command: "!bench", Version: "0"}
}

func (w *world) Open(_ context.Context, _ *bridge.Login, sink bridge.Sink) (bridge.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sink = sink
	return w, nil
}

func (w *world) Send(_ context.Context, msg *bridge.Message) (bridge.Sent, error) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, twice := w.sent[msg.Text]; !twice {
		w.sent[msg.Text] = now
	}
	return bridge.Sent{}, nil
}

func (w *world) Close(context.Context) error { return nil }
