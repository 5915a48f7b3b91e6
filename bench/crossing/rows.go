package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/store"
)

func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[int(q*float64(len(all)-1))]
}

// syncs is how long fdatasync takes after a write of one page to a file that has its size.
func syncs(dir string, n int) (took []time.Duration, err error) {
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	page := make([]byte, 8<<10)
	for i := range n {
		if _, err = f.WriteAt(page, int64(i)*int64(len(page))); err != nil {
			return nil, err
		}
	}
	if err = f.Sync(); err != nil {
		return nil, err
	}
	for i := range n {
		began := time.Now()
		if _, err = f.WriteAt(page, int64(i)*int64(len(page))); err == nil {
			err = unix.Fdatasync(int(f.Fd()))
		}
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// toSend: a homeserver sends an event every hundredth of a second. From its PUT to the Session's Send two commits are waited for:
// that of the transaction, and the mark of doubt.
func toSend(ctx context.Context, dir string, seconds int) (row, error) {
	w, err := newWorld(ctx, dir, 50)
	if err != nil {
		return row{}, err
	}
	defer w.close()
	if _, err = w.start(); err == nil {
		err = w.joined(ctx)
	}
	if err != nil {
		return row{}, err
	}
	disk, err := syncs(dir, 200)
	if err != nil {
		return row{}, err
	}
	begun := map[string]time.Time{}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	total := 100 * seconds
	for i := range 100 + total {
		<-ticker.C
		name := fmt.Sprintf("event %d", i)
		body := fmt.Sprintf(`{"events":[{"type":"m.room.message","room_id":%q,"sender":%q,"event_id":"$bench%d","origin_server_ts":%d,"content":{"msgtype":"m.text","body":%q}}]}`,
			w.rooms[i%len(w.rooms)], w.alice.ID(), i, time.Now().UnixMilli(), name)
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, fmt.Sprintf("%s/_matrix/app/v1/transactions/bench%d", w.cfg.Appservice.Address, i), bytes.NewReader([]byte(body)))
		if err != nil {
			return row{}, err
		}
		req.Header.Set("Authorization", "Bearer "+w.hsToken)
		if i >= 100 { // what is cold at first is not what lasts
			begun[name] = time.Now()
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return row{}, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return row{}, fmt.Errorf("a transaction was answered %s", resp.Status)
		}
	}
	time.Sleep(time.Second)
	again, err := syncs(dir, 200)
	if err != nil {
		return row{}, err
	}
	disk = append(disk, again...)
	var took []time.Duration
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, at := range begun {
		sent, ok := w.sent[name]
		if !ok {
			return row{}, fmt.Errorf("%s was not sent", name)
		}
		took = append(took, sent.Sub(at))
	}
	ratio := float64(quantile(took, 0.5)) / float64(quantile(disk, 0.5))
	return row{
		"PUT to Send, 100 events/s", fmt.Sprintf("p50 %v, p99 %v; fdatasync p50 %v", round(quantile(took, 0.5)), round(quantile(took, 0.99)), round(quantile(disk, 0.5))),
		fmt.Sprintf("%.1f × fdatasync", ratio), "at most 8 ×", ratio <= 8,
	}, nil
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

const crowded = 200 // rooms

// toMatrix: people talk in 200 channels at once. Beside it, the same requests to the homeserver by as many workers, from memory. Both end
// when the homeserver has the last request. The processor time is that of the whole process, until the echoes are taken in as well.
func toMatrix(ctx context.Context, dir string, messages int) (row, error) {
	w, err := newWorld(ctx, dir, crowded)
	if err != nil {
		return row{}, err
	}
	defer w.close()
	if _, err = w.start(); err == nil {
		err = w.joined(ctx)
	}
	if err != nil {
		return row{}, err
	}
	each := messages / crowded
	if _, err = w.load(ctx, w.bridged, "warm", 1); err != nil { // ghosts, devices, rooms
		return row{}, err
	}
	var with, without []spent
	for round := range 5 {
		sides := []func() error{
			func() error {
				a, err := w.load(ctx, w.bridged, fmt.Sprintf("round %d", round), each)
				with = append(with, a)
				return err
			},
			func() error {
				b, err := w.load(ctx, w.direct, fmt.Sprintf("direct %d", round), each)
				without = append(without, b)
				return err
			},
		}
		if round%2 == 1 { // the homeserver has more to remember from one to the next
			slices.Reverse(sides)
		}
		for _, side := range sides {
			if err := side(); err != nil {
				return row{}, err
			}
		}
	}
	n := float64(each * crowded)
	ours, theirs := n/middle(with, spent.wallTime).Seconds(), n/middle(without, spent.wallTime).Seconds()
	busy := func(all []spent) time.Duration {
		return (middle(all, spent.processorTime) / time.Duration(each*crowded)).Round(time.Microsecond)
	}
	return row{
		"network to Matrix, 200 rooms",
		fmt.Sprintf("%.0f messages/s, %v of processor time each; without a store %.0f/s, %v", ours, busy(with), theirs, busy(without)),
		fmt.Sprintf("%.2f ×", ours/theirs), "at least 0.8 ×", ours >= 0.8*theirs,
	}, nil
}

// spent is what a load took.
type spent struct{ wall, processor time.Duration }

func (s spent) wallTime() time.Duration      { return s.wall }
func (s spent) processorTime() time.Duration { return s.processor }

func middle(all []spent, of func(spent) time.Duration) time.Duration {
	took := make([]time.Duration, 0, len(all))
	for _, s := range all {
		took = append(took, of(s))
	}
	return quantile(took, 0.5)
}

// processor is what this process has used of the processors.
func processor() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// load has a side say so many things in every room, and measures until the last of them is asked of the homeserver. Nobody reads along
// meanwhile: what a client of bridgetest costs grows with what it has seen. That everything is there is looked at afterwards.
func (w *world) load(ctx context.Context, side func(ctx context.Context, name string, each int) error, name string, each int) (spent, error) {
	var asked atomic.Int64
	last, total := make(chan struct{}), int64(each*len(w.rooms))
	remove := w.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/send/") && asked.Add(1) == total {
			close(last)
		}
		return false
	})
	defer remove()
	runtime.GC() // what the other side has left
	used, began := processor(), time.Now()
	err := side(ctx, name, each)
	if err == nil {
		select {
		case <-last:
		case <-ctx.Done():
			err = fmt.Errorf("%s: %d of %d requests came: %w", name, asked.Load(), total, ctx.Err())
		}
	}
	took := spent{wall: time.Since(began)}
	if err == nil {
		err = w.hs.Settle(ctx)
	}
	took.processor = processor() - used
	for _, room := range w.rooms {
		if err == nil {
			_, err = w.alice.WaitFor(ctx, room, bridgetest.Text(fmt.Sprintf("%s %d", name, each-1)))
		}
	}
	return took, err
}

// bridged has the network say it.
func (w *world) bridged(ctx context.Context, name string, each int) error {
	errs := make(chan error, len(w.channels))
	for _, channel := range w.channels {
		go func() {
			var err error
			for i := 0; i < each && err == nil; i++ {
				err = w.deliver(ctx, text(channel, "bob", fmt.Sprintf("%s %d", name, i)))
			}
			errs <- err
		}()
	}
	var err error
	for range w.channels {
		err = errors.Join(err, <-errs)
	}
	return err
}

// direct says it without a bridge: 16 workers with mautrix's client, as the bridge has it, rooms one after another, each message once the
// one before is answered.
func (w *world) direct(ctx context.Context, name string, each int) error {
	pool := &http.Transport{MaxIdleConnsPerHost: 48}
	defer pool.CloseIdleConnections()
	ghost := id.NewUserID(w.cfg.Appservice.Ghosts+"bob", w.hs.Domain())
	devices := w.hs.Devices(ghost)
	if len(devices) != 1 {
		return fmt.Errorf("bob has the devices %v", devices)
	}
	client, err := mautrix.NewClient(w.hs.URL(), ghost, w.token)
	if err != nil {
		return err
	}
	client.Client, client.DeviceID, client.SetAppServiceUserID, client.SetAppServiceDeviceID = &http.Client{Transport: pool}, devices[0], true, true
	client.IgnoreRateLimit = true
	rooms := make(chan id.RoomID, len(w.rooms))
	for _, room := range w.rooms {
		rooms <- room
	}
	close(rooms)
	var wait sync.WaitGroup
	errs := make(chan error, 16)
	for range 16 {
		wait.Go(func() {
			for room := range rooms {
				for i := range each {
					content := fmt.Appendf(nil, `{"io.github.trestle-bridge.outbox":"t%032d","msgtype":"m.text","body":%q,"m.mentions":{}}`, i, fmt.Sprintf("%s %d", name, i))
					txn := mautrix.ReqSendEvent{TransactionID: fmt.Sprintf("%s-%s-%d", name, room, i)}
					if _, err := client.SendMessageEvent(ctx, room, event.EventMessage, json.RawMessage(content), txn); err != nil {
						errs <- err
						return
					}
				}
			}
		})
	}
	wait.Wait()
	close(errs)
	return <-errs
}

const crowd = 1000 // people

// storm: a thousand people come, and then they are split off, each by a line of its own; in the middle somebody says something.
func storm(ctx context.Context, dir string) (rows []row, err error) {
	w, err := newWorld(ctx, dir, 1)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if _, err = w.start(); err == nil {
		err = w.joined(ctx)
	}
	if err == nil {
		err = w.deliver(ctx, text(w.channels[0], "bob", "hello"))
	}
	if err == nil {
		_, err = w.alice.WaitFor(ctx, w.rooms[0], bridgetest.Text("hello"))
	}
	if err != nil {
		return nil, err
	}
	for _, what := range []string{"join storm", "netsplit", "return"} {
		said := make(chan time.Time, 1)
		seen := make(chan time.Time, 1)
		go func() {
			if _, err := w.alice.WaitFor(ctx, w.rooms[0], bridgetest.Text("in the middle of the "+what)); err == nil {
				seen <- time.Now()
			}
			close(seen)
		}()
		began := time.Now()
		for i := range crowd {
			in := &bridge.Incoming{Channel: w.channels[0], Sender: person(fmt.Sprintf("guest%d", i))}
			if what == "netsplit" {
				in.Leave = &bridge.Leave{Reason: "*.net *.split"}
			} else {
				in.Join = &bridge.Join{}
			}
			if err = w.deliver(ctx, in); err != nil {
				return nil, err
			}
			if i == crowd/2 {
				said <- time.Now()
				if err = w.deliver(ctx, text(w.channels[0], "bob", "in the middle of the "+what)); err != nil {
					return nil, err
				}
			}
		}
		delivered := time.Since(began)
		after, ok := <-seen
		if !ok {
			return nil, fmt.Errorf("what was said in the middle of the %s does not arrive: %w", what, ctx.Err())
		}
		delay := after.Sub(<-said)
		if err = w.deliver(ctx, text(w.channels[0], "bob", "after the "+what)); err == nil {
			_, err = w.alice.WaitFor(ctx, w.rooms[0], bridgetest.Text("after the "+what))
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			what + " of 1,000", fmt.Sprintf("delivered in %v, done in %v", delivered.Round(time.Millisecond), time.Since(began).Round(time.Millisecond)),
			fmt.Sprintf("a message in the middle waits %v", delay.Round(time.Millisecond)), "less than 1 s", delay < time.Second,
		})
	}
	return rows, nil
}

// ready: a store with 100,000 ghosts and 10,000 portals.
func ready(ctx context.Context, dir string) (row, error) {
	w, err := newWorld(ctx, dir, 0)
	if err != nil {
		return row{}, err
	}
	defer w.close()
	db, err := store.Open(ctx, w.cfg.Database, store.Options{Log: zerolog.Nop()})
	if err != nil {
		return row{}, err
	}
	const ghosts, portals, batch = 100_000, 10_000, 5000
	for i := 0; i < ghosts && err == nil; i += batch {
		err = db.Commit(ctx, db.Epoch(), func(tx *store.Tx) error {
			for j := i; j < i+batch; j++ {
				user := fmt.Sprintf("@%sperson%d:%s", w.cfg.Appservice.Ghosts, j, w.hs.Domain())
				if err := tx.PutGhost(&store.Ghost{UserID: user, Registered: true, DeviceID: "TRESTLE" + fmt.Sprint(j), DeviceMade: true, DisplayName: fmt.Sprint("Person ", j)}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := 0; i < portals && err == nil; i += batch {
		err = db.Commit(ctx, db.Epoch(), func(tx *store.Tx) error {
			for j := i; j < i+batch; j++ {
				if err := tx.PutPortal(&store.Portal{Channel: fmt.Sprintf("#channel%d", j), Room: fmt.Sprintf("!room%d:%s", j, w.hs.Domain()), Source: "command"}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if closing := db.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return row{}, err
	}
	var took []time.Duration
	for range 3 {
		t, err := w.start()
		if err != nil {
			return row{}, err
		}
		took = append(took, t)
		w.end()
	}
	median := quantile(took, 0.5)
	return row{"ready with 100,000 ghosts and 10,000 portals", "median of 3 starts", median.Round(time.Millisecond).String(), "less than 1 s", median < time.Second}, nil
}
