//go:build goolm

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"maunium.net/go/mautrix/id"
)

// side is one of the two that are compared.
type side interface {
	// prepare makes a room in which encryption needs no network any more.
	prepare(ctx context.Context, room int) (id.RoomID, error)
	encrypt(ctx context.Context, room id.RoomID, content json.RawMessage) error
	// count gives how many messages were encrypted, from the store.
	count(ctx context.Context) (int64, error)
	close() error
}

func main() {
	rooms := flag.Int("rooms", 50, "how many rooms encrypt at once")
	seconds := flag.Float64("seconds", 2, "how long one measurement takes")
	rounds := flag.Int("rounds", 3, "how many times both are measured, in turn")
	dir := flag.String("dir", "", "folder for the stores; the default temporary folder may be in memory")
	profile := flag.String("profile", "", "write a CPU profile of the framework's rounds to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	result, err := run(ctx, *dir, *rooms, *rounds, time.Duration(*seconds*float64(time.Second)), *profile)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sealing:", err)
		os.Exit(1)
	}
}

// answer is messages a second, in each round.
type answer struct {
	Framework []float64 `json:"framework"`
	Peer      []float64 `json:"peer"`
}

func run(ctx context.Context, dir string, rooms, rounds int, length time.Duration, profile string) (out answer, err error) {
	for round := range rounds {
		for _, s := range []struct {
			open func(context.Context, string) (side, error)
			into *[]float64
			cpu  string
		}{{openPeer, &out.Peer, ""}, {openFramework, &out.Framework, profile}} {
			folder, err := os.MkdirTemp(dir, fmt.Sprintf("sealing-%d-", round))
			if err != nil {
				return out, err
			}
			rate, err := measure(ctx, s.open, folder, rooms, length, s.cpu)
			if err = errors.Join(err, os.RemoveAll(folder)); err != nil {
				return out, err
			}
			*s.into = append(*s.into, rate)
		}
	}
	return out, nil
}

func measure(ctx context.Context, open func(context.Context, string) (side, error), dir string, rooms int, length time.Duration, profile string) (rate float64, err error) {
	s, err := open(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	ids := make([]id.RoomID, rooms)
	for i := range ids {
		if ids[i], err = s.prepare(ctx, i); err != nil {
			return 0, err
		}
	}
	before, err := s.count(ctx)
	if err != nil {
		return 0, err
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return 0, err
		}
	}
	done, elapsed, err := drive(ctx, s, ids, length)
	if profile != "" {
		pprof.StopCPUProfile()
	}
	if err != nil {
		return 0, err
	}
	after, err := s.count(ctx)
	if err == nil && after-before != done {
		err = fmt.Errorf("%d messages were encrypted, and the store says %d", done, after-before)
	}
	return float64(done) / elapsed.Seconds(), err
}

// content is a message of usual length.
var content, _ = json.Marshal(map[string]any{
	"msgtype": "m.text", "body": "A message as people write them, some words long and with nothing special in it.", "m.mentions": map[string]any{},
})

func drive(ctx context.Context, s side, rooms []id.RoomID, length time.Duration) (done int64, elapsed time.Duration, err error) {
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var work sync.WaitGroup
	began := time.Now()
	for _, room := range rooms {
		work.Go(func() {
			for time.Since(began) < length && failed.Load() == nil {
				if err := s.encrypt(ctx, room, content); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	work.Wait()
	elapsed = time.Since(began)
	if e := failed.Load(); e != nil {
		err = *e
	}
	return count.Load(), elapsed, err
}
