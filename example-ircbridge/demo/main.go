// Command demo starts a homeserver, an IRC server and the IRC bridge on this machine, lets two people talk across, and
// prints what each side saw. It then stays up so that you can join with an IRC client; with -once it stops, with a status
// other than 0 if anything did not cross.
//
// Homeserver and IRC server run in this process (packages bridgetest and ircd); the bridge is the real program, built
// and run as any administrator would. Everything listens on free loopback ports; data is in -data and is made anew at
// every start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/example-ircbridge/ircd"
)

func main() {
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil && !(errors.Is(err, context.Canceled) && ctx.Err() != nil) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type options struct {
	once bool
	data string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.BoolVar(&o.once, "once", false, "stop after the conversation")
	flags.StringVar(&o.data, "data", "demo-data", "directory for the demo's files")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is no flag that the demo knows: -h lists them", flags.Arg(0))
	}
	return o, nil
}

const channel = "#trestle"

func run(ctx context.Context, o options) (err error) {
	data, err := filepath.Abs(o.data)
	if err != nil {
		return err
	}
	mark, err := takeDirectory(data)
	if err != nil {
		return err
	}
	defer mark.Close()
	fmt.Println("Starting a homeserver and an IRC server …")
	hs, err := bridgetest.StartHomeserver(bridgetest.Options{ServerName: "demo.localhost"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hs.Close()) }()
	irc, err := ircd.Start(ircd.Options{Name: "irc.demo.localhost", Network: "Demo", MOTD: []string{"Join " + channel + "."}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, irc.Close()) }()

	fmt.Println("Building the IRC bridge (the first time, this takes a minute or two) …")
	b, err := startBridge(ctx, data, hs, irc.Addr())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()

	talking, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	talk, err := newTalk(talking, hs, irc.Addr(), b)
	if err != nil {
		return fmt.Errorf("%w\nThe bridge's log is in %s", err, b.logPath)
	}
	defer talk.bob.close()
	fmt.Printf("\nThe conversation. Left: what somebody did. Right: what the other side saw.\n\n")
	if err := talk.conversation(talking); err != nil {
		return fmt.Errorf("did not cross: %w\nThe bridge's log is in %s", err, b.logPath)
	}
	fmt.Println("\nEverything crossed.")
	if o.once {
		return nil
	}
	fmt.Printf("\nNow you: point an IRC client at %s (no TLS), join %s, and say something.\n", irc.Addr(), channel)
	fmt.Printf("alice, on Matrix, answers. The homeserver is at %s, the log in %s. Ctrl-C ends the demo.\n", hs.URL(), b.logPath)
	fmt.Printf("The bridge's commands work beside it, such as check, media list and deadletters list:\n\n    %s check -config %s\n\n",
		filepath.Join(o.data, "trestle-irc"), filepath.Join(o.data, "config.yaml"))
	err = talk.answerEverybody(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
