package bridge

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
)

// runCommand runs the bridge until a signal comes.
func (p *program) runCommand(*flag.FlagSet) func() int {
	return func() int {
		// Before anything else, so that a signal during the start is a clean stop too. The second one must find room.
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)

		cfg, status := p.load()
		if cfg == nil {
			return status
		}
		if mistakes := registrationMistakes(cfg, nil); len(mistakes) > 0 {
			for _, m := range mistakes {
				fmt.Fprintln(p.stderr, m)
			}
			fmt.Fprintf(p.stderr, "%s; nothing was done\n", count(len(mistakes), "mistake"))
			return exitWrong
		}
		for _, n := range registrationNotes(cfg, p.network) {
			fmt.Fprintf(p.stderr, "warning: %s\n", n)
		}
		log, closeLog, err := openLog(&cfg.Log, p.stderr)
		if err != nil {
			fmt.Fprintln(p.stderr, "opening the log:", err)
			return exitFailed
		}
		defer closeLog()
		b, err := New(cfg, p.network, log)
		if err != nil {
			log.Error().Err(err).Msg("The bridge cannot be made")
			return exitFailed
		}
		return runUntilSignal(b, signals, log)
	}
}

// runUntilSignal stops in the way that Main documents. What a second signal leaves undone is in the store.
func runUntilSignal(b interface{ Run(context.Context) error }, signals <-chan os.Signal, log zerolog.Logger) int {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	for first := true; ; first = false {
		select {
		case err := <-ended:
			// A start that the first signal cut short is a stop like any other.
			if err != nil && !(ctx.Err() != nil && errors.Is(err, context.Canceled)) {
				log.Error().Err(err).Msg("Ended with an error")
				return exitFailed
			}
			log.Info().Msg("Stopped")
			return exitOK
		case s := <-signals:
			if !first {
				log.Warn().Stringer("signal", s).Msg("Stopping at once; what is unfinished goes on at the next start")
				return exitForced
			}
			log.Info().Stringer("signal", s).Msg("Stopping; a second signal ends it at once")
			stop()
		}
	}
}

// openLog makes the logger. Whoever reads the log file must be able to read everything that people write, so only its
// owner can.
func openLog(cfg *LogConfig, stderr io.Writer) (zerolog.Logger, func(), error) {
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		return zerolog.Nop(), nil, err
	}
	out, closeLog, terminal := stderr, func() {}, isTerminal(stderr)
	if cfg.File != "" {
		file, err := os.OpenFile(cfg.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return zerolog.Nop(), nil, err
		}
		out, closeLog, terminal = file, func() { file.Close() }, false
	}
	if cfg.Format == "pretty" {
		out = zerolog.ConsoleWriter{Out: out, NoColor: !terminal, TimeFormat: "2006-01-02 15:04:05"}
	}
	return zerolog.New(zerolog.SyncWriter(out)).Level(level).With().Timestamp().Logger(), closeLog, nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
