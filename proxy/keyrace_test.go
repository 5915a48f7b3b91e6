package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// ringDatabase names the database to a process that opens the key ring in it.
const ringDatabase = "TRESTLE_TEST_RING"

// TestRing_Process is one of several processes: at each line that it reads it does what that says, and writes what came of it.
func TestRing_Process(t *testing.T) {
	uri := os.Getenv(ringDatabase)
	if uri == "" {
		return // run by itself it has nothing to do
	}
	v, err := store.Visit(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		ring, err := OpenKeyRing(t.Context(), v, nil)
		if err == nil && lines.Text() == "rotate" {
			_, err = ring.Rotate(t.Context())
		}
		switch {
		case lines.Text() == "rotate" && (errors.Is(err, store.ErrTaken) || errors.Is(err, store.ErrNotFound)):
			fmt.Println("another process was first")
		case err != nil:
			fmt.Println("failed:", err)
		default:
			ids, _ := ring.IDs()
			fmt.Println("keys", ids)
		}
	}
}

// ringProcesses are processes on one database that do the same thing at once.
type ringProcesses struct {
	t   *testing.T
	in  []io.Writer
	out []*bufio.Scanner
}

func startRings(t *testing.T, n int, uri string) *ringProcesses {
	p := &ringProcesses{t: t}
	for range n {
		process := exec.Command(os.Args[0], "-test.run=^TestRing_Process$")
		process.Env = append(os.Environ(), ringDatabase+"="+uri)
		in, err := process.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := process.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			in.Close()
			io.Copy(io.Discard, out)
			process.Wait()
		})
		p.in, p.out = append(p.in, in), append(p.out, bufio.NewScanner(out))
	}
	p.hear()
	return p
}

func (p *ringProcesses) hear() (said []string) {
	p.t.Helper()
	for _, out := range p.out {
		if !out.Scan() {
			p.t.Fatal("a process has ended")
		}
		said = append(said, out.Text())
	}
	return said
}

func (p *ringProcesses) all(do string) (said []string) {
	p.t.Helper()
	for _, in := range p.in {
		io.WriteString(in, do+"\n")
	}
	return p.hear()
}

func TestProxy04_ProcessesThatStartTogether_MakeOneKeyAndRotateItOnceAtATime(t *testing.T) {
	for name, uri := range map[string]func(testing.TB) string{"SQLite": storetest.SQLite, "PostgreSQL": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			at := uri(t)
			st := storetest.Open(t, at, store.Options{})
			p := startRings(t, 4, at)
			if said := p.all("open"); slices.ContainsFunc(said, func(s string) bool { return s != "keys [1]" }) {
				t.Errorf("the first start: %q", said)
			}
			for range 5 {
				before, err := st.MediaKeys(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				rotated := 0
				said := p.all("rotate")
				for _, s := range said {
					switch {
					case strings.HasPrefix(s, "keys "):
						rotated++
					case s != "another process was first":
						t.Error(s)
					}
				}
				keys, err := st.MediaKeys(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				signing := 0
				for _, k := range keys {
					if k.Retired.IsZero() {
						signing++
					}
				}
				if signing != 1 || rotated == 0 || len(keys) != len(before)+rotated {
					t.Errorf("%d keys of %d, %d sign: %q", len(keys), len(before), signing, said)
				}
			}
		})
	}
}
