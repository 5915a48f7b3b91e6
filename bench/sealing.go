package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// goalSealing is times the encrypted messages of mautrix-go's own machine and store.
const goalSealing = 2.0

// measureSealing measures encryption: see bench/sealing.
func (b *bench) measureSealing(ctx context.Context, w io.Writer) error {
	progress("building bench/sealing")
	binary, err := filepath.Abs(filepath.Join(b.dir, "sealing"))
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-tags", "goolm", "-o", binary, module+"/bench/sealing")
	build.Stderr = os.Stderr
	if err = build.Run(); err != nil {
		return fmt.Errorf("build bench/sealing: %w", err)
	}
	progress("%d rounds of encrypted messages", b.options.rounds)
	args := []string{"-dir", b.dir, "-rooms", fmt.Sprint(rooms), "-rounds", fmt.Sprint(b.options.rounds), "-seconds", fmt.Sprint(b.options.seconds)}
	if b.options.profile != "" {
		args = append(args, "-profile", filepath.Join(b.options.profile, "sealing.pprof"))
	}
	run := exec.CommandContext(ctx, binary, args...)
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		return err
	}
	var measured struct{ Framework, Peer []float64 }
	if err = json.Unmarshal(out, &measured); err != nil {
		return err
	}
	if len(measured.Framework) == 0 || len(measured.Peer) != len(measured.Framework) {
		return errors.New("bench/sealing measured nothing")
	}
	same := func(v float64) float64 { return v }
	framework, peer := median(measured.Framework, same), median(measured.Peer, same)
	ratio := framework / peer
	fmt.Fprintf(w, "\nMegolm encryptions, stored durably, %d rooms at once: %.0f/s; mautrix-go's machine with its SQL store on a SQLite file of its own: %.0f/s.\n",
		rooms, framework, peer)
	reached := "reached"
	if ratio < goalSealing {
		reached = "NOT reached"
	}
	fmt.Fprintf(w, "%.1f times as many: the goal of %.0f is %s.\n", ratio, goalSealing, reached)
	return nil
}
