package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	tags := flag.String("tags", "goolm,failpoints", "build tags; those of the simulation among them")
	short := flag.Bool("short", false, "only the five on which the promise stands")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	survived, err := run(ctx, *tags, *short, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || survived > 0 {
		os.Exit(1)
	}
}

// run tries the mutants whose names contain one of the words, or all of them.
func run(ctx context.Context, tags string, short bool, words []string) (survived int, err error) {
	root, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	scratch, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(scratch)
	l := &laboratory{root: root, scratch: scratch, tags: tags, sound: map[string]string{}, passed: map[string]error{}}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "guard\twithout it\tseconds\ttest")
	tried := 0
	for _, m := range slices.Concat(mutants, simulated, encrypted) {
		if !wanted(m.name, words) || short && !slices.Contains(fundamental, m.name) {
			continue
		}
		if ctx.Err() != nil {
			return survived, ctx.Err()
		}
		begin := time.Now()
		verdict := "killed"
		if err := l.try(ctx, m); err != nil {
			verdict = err.Error()
			survived++
		}
		tried++
		fmt.Fprintf(table, "%s\t%s\t%.1f\t%s %s\n", m.name, verdict, time.Since(begin).Seconds(), m.pkg, m.test)
		fmt.Fprintf(os.Stderr, "%s: %s\n", m.name, verdict)
	}
	if err = table.Flush(); err != nil {
		return survived, err
	}
	fmt.Printf("%d mutants, %d not killed\n", tried, survived)
	return survived, nil
}

func wanted(name string, words []string) bool {
	for _, word := range words {
		if strings.Contains(name, word) {
			return true
		}
	}
	return len(words) == 0
}

// laboratory compiles and runs tests.
type laboratory struct {
	root, scratch, tags string
	sound               map[string]string // the unchanged tests, by package
	passed              map[string]error  // what became of them, by package and name
	n                   int
}

// testWithin bounds one test. A mutant that waits for ever is killed too, but for the simulation, in which nothing waits for ever.
const testWithin = 5 * time.Minute

// try returns nil when the mutant is killed.
func (l *laboratory) try(ctx context.Context, m mutant) error {
	overlay, err := l.overlay(m)
	if err != nil {
		return err
	}
	sound := l.sound[m.pkg]
	if sound == "" {
		if sound, err = l.compile(ctx, m.pkg, ""); err != nil {
			return err
		}
		l.sound[m.pkg] = sound
	}
	if err := l.passes(ctx, sound, m); err != nil {
		return err
	}
	mutated, err := l.compile(ctx, m.pkg, overlay)
	if err != nil {
		return err
	}
	if _, passed, out := l.run(ctx, mutated, m); passed {
		return errors.New("SURVIVED")
	} else if m.test == simulation && strings.Contains(out, "test timed out") {
		return errors.New("the simulation was too slow to see anything")
	} else if !strings.Contains(out, "--- FAIL: "+m.test+" ") && !strings.Contains(out, "panic: ") {
		return fmt.Errorf("its test was not run: %s", lastLines(out))
	}
	return os.Remove(mutated)
}

// passes is nil when a test passes in the code as it is. Each is run once, however many mutants it is for.
func (l *laboratory) passes(ctx context.Context, sound string, m mutant) error {
	name := m.pkg + " " + m.test
	if err, known := l.passed[name]; known {
		return err
	}
	ran, passed, out := l.run(ctx, sound, m)
	var err error
	if !ran {
		err = errors.New("its test is not there, or was skipped")
	} else if !passed {
		err = fmt.Errorf("its test fails without it: %s", lastLines(out))
	}
	l.passed[name] = err
	return err
}

// overlay writes the mutated file, and what go build needs to take it.
func (l *laboratory) overlay(m mutant) (path string, err error) {
	source := filepath.Join(l.root, filepath.FromSlash(m.file))
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	mutated, err := m.apply(string(text))
	if err != nil {
		return "", err
	}
	l.n++
	file := filepath.Join(l.scratch, fmt.Sprintf("%d.go", l.n))
	if err = os.WriteFile(file, []byte(mutated), 0o600); err != nil {
		return "", err
	}
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{source: file}})
	if err != nil {
		return "", err
	}
	path = filepath.Join(l.scratch, fmt.Sprintf("%d.json", l.n))
	return path, os.WriteFile(path, b, 0o600)
}

func (m mutant) apply(text string) (string, error) {
	if n := strings.Count(text, m.old); n != 1 {
		return "", fmt.Errorf("its place is %d times in %s: mend the table", n, m.file)
	}
	return strings.Replace(text, m.old, m.new, 1), nil
}

func (l *laboratory) compile(ctx context.Context, pkg, overlay string) (binary string, err error) {
	l.n++
	binary = filepath.Join(l.scratch, fmt.Sprintf("%d.test", l.n))
	args := []string{"test", "-c", "-tags", l.tags, "-ldflags=-w", "-o", binary}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+pkg)...)
	cmd.Dir = l.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling its test: %w: %s", err, lastLines(string(out)))
	}
	return binary, nil
}

// run runs one test, and says whether it was run at all and whether it passed.
func (l *laboratory) run(ctx context.Context, binary string, m mutant) (ran, passed bool, out string) {
	ctx, cancel := context.WithTimeout(ctx, testWithin+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.failfast", "-test.count=1", "-test.timeout", testWithin.String(), "-test.run", pattern(m.test))
	cmd.Dir = filepath.Join(l.root, filepath.FromSlash(m.pkg))
	b, err := cmd.CombinedOutput()
	out = string(b)
	passed = err == nil
	ran = strings.Contains(out, "--- PASS: "+m.test+" ") || !passed
	return ran, passed, out
}

// pattern matches exactly the test of that name.
func pattern(test string) string {
	parts := strings.Split(test, "/")
	for i := range parts {
		parts[i] = "^" + parts[i] + "$"
	}
	return strings.Join(parts, "/")
}

func lastLines(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}
