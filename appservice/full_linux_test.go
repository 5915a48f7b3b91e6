package appservice

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/trestle-bridge/trestle/store"
	"github.com/trestle-bridge/trestle/store/storetest"
)

// fullVariable makes the test binary serve transactions on the store that it names, and fill its disk when it is told to.
const fullVariable = "TRESTLE_APPSERVICE_TEST_FULL"

func init() {
	if uri := os.Getenv(fullVariable); uri != "" {
		if err := serveOnAFullDisk(uri); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// serveOnAFullDisk reads lines: "full" lets no file of this process grow any more, "free" ends that, and the end of the
// input stops it well. It answers each, and says "held" when a transaction is held back. The limit on the size of files
// stands for a disk without room: a write that needs more fails, and what is there can be written over.
func serveOnAFullDisk(uri string) error {
	ossignal.Ignore(syscall.SIGXFSZ) // so that the write fails instead
	s, err := store.Open(context.Background(), uri, store.Options{})
	if err != nil {
		return err
	}
	as, err := New(Config{
		Registration: testRegistration(), HomeserverURL: "http://127.0.0.1:1", ServerName: testServer, Store: s, Handler: deadly{},
		Log: zerolog.New(heldLog{}), HoldFor: 5 * time.Second, // far longer than a commit takes
	})
	if err != nil {
		return err
	}
	if err := as.Start(context.Background()); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	go func() { _ = http.Serve(l, as) }()
	var usual unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &usual); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		limit := usual
		if in.Text() == "full" {
			limit.Cur = 0
			files, _ := filepath.Glob(strings.TrimPrefix(uri, "sqlite:") + "*")
			for _, file := range files {
				if info, err := os.Stat(file); err == nil {
					limit.Cur = max(limit.Cur, uint64(info.Size()))
				}
			}
		}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		fmt.Println(in.Text())
	}
	if err := as.Stop(context.Background()); err != nil {
		return err
	}
	return s.Close()
}

type heldLog struct{}

func (heldLog) Write(p []byte) (int, error) {
	if strings.Contains(string(p), heldBack) {
		fmt.Println("held")
	}
	return len(p), nil
}

func TestAway_DiskFull_HoldsRefusesAndRecoversAlone(t *testing.T) {
	uri := storetest.SQLite(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fullVariable+"="+uri)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	expect := func(want string) {
		t.Helper()
		for line := range lines {
			if line == want {
				return
			}
		}
		t.Fatalf("the process ended before it said %q", want)
	}
	tell := func(what string) {
		t.Helper()
		if _, err := fmt.Fprintln(in, what); err != nil {
			t.Fatal(err)
		}
		expect(what)
	}
	base := <-lines
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var acknowledged []string
	put := func(n int) int {
		t.Helper()
		id := fmt.Sprint("$", n)
		r, err := http.NewRequest(http.MethodPut, fmt.Sprintf("%s/_matrix/app/v1/transactions/%d", base, n), strings.NewReader(events(padded(id, 1<<20))))
		if err != nil {
			t.Error(err)
			return 0
		}
		r.Header.Set("Authorization", "Bearer "+testHSToken)
		answer, err := client.Do(r)
		if err != nil {
			t.Error(err)
			return 0
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			acknowledged = append(acknowledged, id)
		}
		return answer.StatusCode
	}
	if code := put(0); code != http.StatusOK {
		t.Fatalf("with room: %d", code)
	}
	tell("full")
	n := 1
	for ; put(n) == http.StatusOK; n++ { // there is a little room in the files themselves
		if n == 100 {
			t.Fatal("the disk is not full")
		}
	}
	expect("held") // before it was refused
	answered := make(chan int, 1)
	go func() {
		code := 0
		for try := 0; code != http.StatusOK && try < 100; try++ { // as a homeserver does
			code = put(n)
		}
		answered <- code
	}()
	expect("held")
	tell("free")
	if code := <-answered; code != http.StatusOK {
		t.Errorf("with room again: %d", code)
	}
	if code := put(n + 1); code != http.StatusOK {
		t.Errorf("with room again: %d", code)
	}
	in.Close()
	for range lines {
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}

	// What the drain left waiting is handled by the next process.
	f := &fixture{t: t, rec: newRecorder(), store: storetest.Open(t, uri, store.Options{})}
	as, err := New(Config{Registration: testRegistration(), HomeserverURL: "http://127.0.0.1:1", ServerName: testServer, Store: f.store, Handler: deadly{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := as.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.as = as
	f.idle()
	f.stop()
	f.wantOutbox(strings.Join(acknowledged, " "))
}
