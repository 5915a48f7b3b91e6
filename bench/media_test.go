package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bench/internal/payload"
)

// readFrom gets 100,000 bytes of a server that writes what it wants.
func readFrom(t *testing.T, write func(w http.ResponseWriter)) (int64, error) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		write(w)
	}))
	defer server.Close()
	r, err := dialReader(t.Context(), strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.conn.Close()
	var total atomic.Int64
	err = r.get("/file", 100_000, &total)
	return total.Load(), err
}

func TestReader_TheFilesBytes_AreCounted(t *testing.T) {
	n, err := readFrom(t, func(w http.ResponseWriter) { _ = payload.Write(w, 100_000) })
	if n != 100_000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestReader_OneWrongByte_IsAnError(t *testing.T) {
	_, err := readFrom(t, func(w http.ResponseWriter) {
		wrong := append([]byte(nil), payload.At(0, 100_000)...)
		wrong[99_999]++
		_, _ = w.Write(wrong)
	})
	if err == nil || !strings.Contains(err.Error(), errWrongBytes.Error()) {
		t.Errorf("it says %v", err)
	}
}

func TestReader_AnswerThatBreaksOff_IsAnError(t *testing.T) {
	_, err := readFrom(t, func(w http.ResponseWriter) {
		_ = payload.Write(w, 50_000)
		panic(http.ErrAbortHandler)
	})
	if err == nil {
		t.Error("half of the file was taken for all of it")
	}
}

func TestReaders_NobodyAnswers_IsAnErrorBeforeTheTimeIsUp(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var total atomic.Int64
	if err := readAgain(t.Context(), addr, "/file", 1, time.Now().Add(time.Hour), &total); err == nil {
		t.Error("a server that is not there counts as measured")
	}
}

func TestMediaReport_NoNginx_SaysWhatIsNotMeasured(t *testing.T) {
	m := &mediaBench{bench: &bench{options: &options{rounds: 1}}, missing: "plain media beside nginx: there is none"}
	var out strings.Builder
	m.report(&out)
	if !strings.Contains(out.String(), "NOT MEASURED: plain media beside nginx: there is none\n") {
		t.Error(out.String())
	}
}
