package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// fileSize is what is preallocated; the writes go round in it.
const fileSize = 64 << 20

func main() {
	listen := flag.String("listen", "127.0.0.1:9300", "address to listen on; port 0 takes a free one")
	token := flag.String("hs-token", "", "the token that the homeserver sends")
	path := flag.String("file", "", "the file to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *token, *path); err != nil {
		fmt.Fprintln(os.Stderr, "file:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, token, path string) error {
	if token == "" || path == "" {
		return errors.New("-hs-token and -file must be given")
	}
	k, err := newKeeper(path, token)
	if err != nil {
		return err
	}
	defer k.file.Close()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("listening on %s\n", listener.Addr())
	server := &http.Server{Handler: k, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err = <-ended:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = server.Shutdown(stopping)
	<-ended
	return err
}

type keeper struct {
	token string

	mu           sync.Mutex
	file         *os.File
	at           int64
	transactions int64
	body         []byte
}

func newKeeper(path, token string) (*keeper, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for range fileSize / len(zeros) {
		if _, err = file.Write(zeros); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	if err = file.Sync(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &keeper{token: token, file: file}, nil
}

// ServeHTTP implements [http.Handler].
func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodGet && r.URL.Path == "/count" {
		fmt.Fprintf(w, `{"transactions":%d}`, k.transactions)
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+k.token {
		http.Error(w, "{}", http.StatusForbidden)
		return
	}
	if err := k.keep(r); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = io.WriteString(w, "{}")
}

func (k *keeper) keep(r *http.Request) error {
	if r.ContentLength < 0 || r.ContentLength > fileSize {
		return fmt.Errorf("a body of %d bytes", r.ContentLength)
	}
	if int64(cap(k.body)) < r.ContentLength {
		k.body = make([]byte, r.ContentLength)
	}
	body := k.body[:r.ContentLength]
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return err
	}
	if k.at+int64(len(body)) > fileSize {
		k.at = 0
	}
	if _, err := k.file.WriteAt(body, k.at); err != nil {
		return err
	}
	if err := datasync(k.file); err != nil {
		return err
	}
	k.at += int64(len(body))
	k.transactions++
	return nil
}
