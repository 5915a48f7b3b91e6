package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
)

// row is a figure beside its goal.
type row struct {
	what, figures, result, goal string
	met                         bool
}

func main() {
	only := flag.String("only", "send,matrix,storm,ready", "what is measured")
	dir := flag.String("dir", ".", "folder under which the data lies")
	seconds := flag.Int("seconds", 5, "how long events are sent, a hundred a second")
	messages := flag.Int("messages", 4000, "how many messages go to Matrix in a round")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, strings.Split(*only, ","), *dir, *seconds, *messages); err != nil {
		fmt.Fprintln(os.Stderr, "crossing:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only []string, dir string, seconds, messages int) error {
	var rows []row
	for _, name := range only {
		fmt.Fprintf(os.Stderr, "%s\n", name)
		ctx, cancel := context.WithTimeout(ctx, within)
		var more []row
		var one row
		var err error
		switch name {
		case "send":
			one, err = toSend(ctx, dir, seconds)
			more = []row{one}
		case "matrix":
			one, err = toMatrix(ctx, dir, messages)
			more = []row{one}
		case "storm":
			more, err = storm(ctx, dir)
		case "ready":
			one, err = ready(ctx, dir)
			more = []row{one}
		default:
			err = fmt.Errorf("-only %s: there are send, matrix, storm and ready", name)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, more...)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "journey\tfigures\tresult\tgoal\t")
	for _, r := range rows {
		verdict := "reached"
		if !r.met {
			verdict = "MISSED"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.what, r.figures, r.result, r.goal, verdict)
	}
	return table.Flush()
}
