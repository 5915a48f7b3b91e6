package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	rounds  int
	seconds float64
	only    []string
	dir     string
	decode  bool
	backlog int
	profile string
	sync    string
}

func (o *options) wants(target string) bool {
	return len(o.only) == 0 || slices.Contains(o.only, target)
}

const (
	rooms       = 50
	bigSize     = 100
	allTargets  = "peer-async,peer-sync,file,sqlite,modernc,postgres,proxy,sealing"
	manyRooms   = 50_000
	setupWithin = 30 * time.Second
)

func main() {
	var o options
	var only string
	flag.IntVar(&o.rounds, "rounds", 3, "how many times everything is measured")
	flag.Float64Var(&o.seconds, "seconds", 2, "how long one measurement takes")
	flag.StringVar(&only, "only", "", "targets to measure, of "+allTargets)
	flag.StringVar(&o.dir, "dir", ".", "folder under which the data lies")
	flag.BoolVar(&o.decode, "decode", false, "let the sink's handler decode every event, as a bridge does")
	flag.IntVar(&o.backlog, "backlog", 100_000, "events that wait while the memory of a backlog is measured; 0 leaves that out")
	flag.StringVar(&o.sync, "sync", designSync, "how much longer every fsync and fdatasync takes when all is measured once more, as on a slower disk: a time; or "+
		designSync+", so much that the disk is as fast as the one for which the goals were set; 0 leaves that out")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles of the sinks to this folder")
	flag.Parse()
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o *options) check() error {
	for _, name := range o.only {
		if !slices.Contains(strings.Split(allTargets, ","), name) {
			return fmt.Errorf("-only %s: the targets are %s", name, allTargets)
		}
	}
	if o.rounds < 1 || o.seconds <= 0 {
		return fmt.Errorf("-rounds %d -seconds %g: both must be positive", o.rounds, o.seconds)
	}
	if o.backlog < 0 {
		return fmt.Errorf("-backlog %d: it must not be negative", o.backlog)
	}
	if longer, err := time.ParseDuration(o.sync); o.sync != designSync && (err != nil || longer < 0) {
		return fmt.Errorf("-sync %s: it must be a time that is not negative, such as 1ms, or %s", o.sync, designSync)
	}
	return nil
}

func run(ctx context.Context, o *options) (err error) {
	if err = o.check(); err != nil {
		return err
	}
	if o.profile != "" {
		if err = os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
	}
	parent := filepath.Join(o.dir, "bench-data")
	if err = os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	defer os.Remove(parent) // stays when another run uses it
	dir, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		return fmt.Errorf("make a folder for the data: %w", err)
	}
	defer os.RemoveAll(dir)
	b := &bench{
		options: o, dir: dir, length: time.Duration(o.seconds * float64(time.Second)),
		here: newSeries(0), few: map[string][]*measurement{}, many: map[string][]*measurement{},
	}
	defer b.close()
	if err = b.prepare(ctx); err != nil {
		return err
	}
	if len(b.here.targets) > 0 {
		if err = b.measureIntake(ctx); err != nil {
			return err
		}
		b.report(os.Stdout)
	}
	if o.wants("proxy") {
		if err = b.measureProxy(ctx, os.Stdout); err != nil {
			return fmt.Errorf("the media proxy: %w", err)
		}
	}
	if o.wants("sealing") {
		if err = b.measureSealing(ctx, os.Stdout); err != nil {
			return fmt.Errorf("encryption: %w", err)
		}
	}
	return nil
}

func (b *bench) measureIntake(ctx context.Context) error {
	for round := range b.options.rounds {
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	return b.measureBacklogs(ctx)
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
