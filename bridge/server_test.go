package bridge

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/trestle-bridge/trestle/internal/pipenet"
)

// These tests run with the limits that bridges have, in a bubble's time.

const testHold = 20 * time.Second

// eachServer runs a test against every kind of listener. The handler reads the body, waits as long as the header Wait says,
// and answers.
func eachServer(t *testing.T, test func(t *testing.T, dial func() net.Conn, s *http.Server)) {
	for name, build := range map[string]func(http.Handler) *http.Server{
		"homeserver": func(h http.Handler) *http.Server { return homeserverServer(h, testHold, zerolog.Nop()) },
		"watch":      func(h http.Handler) *http.Server { return watchServer(h, zerolog.Nop()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := build(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n, err := io.Copy(io.Discard, r.Body)
					if err != nil {
						w.WriteHeader(http.StatusBadRequest)
						return
					}
					wait, _ := time.ParseDuration(r.Header.Get("Wait"))
					time.Sleep(wait)
					fmt.Fprintf(w, "%d bytes, %v", n, r.Context().Err())
				}))
				l := pipenet.Listen()
				served := goServe(server, l)
				test(t, l.Dial, server)
				server.Close()
				<-served
			})
		})
	}
}

func goServe(server *http.Server, l net.Listener) <-chan struct{} {
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	return served
}

// answer reads one answer, or gives what came instead.
func answer(conn net.Conn) string {
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err.Error()
	}
	body, _ := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", string(body))
}

func TestListeners_SlowHeader_IsCutOff(t *testing.T) {
	eachServer(t, func(t *testing.T, dial func() net.Conn, s *http.Server) {
		conn, began := dial(), time.Now()
		defer conn.Close()
		_, err := io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: bridge\r\nX: ")
		for err == nil && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			_, err = io.WriteString(conn, "x")
		}
		if took := time.Since(began); err == nil || took > headerLimit+5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestListeners_BodyThatStalls_IsCutOff(t *testing.T) {
	eachServer(t, func(t *testing.T, dial func() net.Conn, s *http.Server) {
		conn, began := dial(), time.Now()
		defer conn.Close()
		if _, err := io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: bridge\r\nContent-Length: 1000\r\n\r\nabc"); err != nil {
			t.Fatal(err)
		}
		got := answer(conn)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is still there")
		}
		if took := time.Since(began); took > s.ReadTimeout+time.Second || strings.HasPrefix(got, "200") {
			t.Errorf("after %v: %s", took, got)
		}
	})
}

func TestListeners_ReaderThatTakesNothing_IsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		server := watchServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, 1<<20))
			ended <- err
		}), zerolog.Nop())
		l := pipenet.Listen()
		served := goServe(server, l)
		conn, began := l.Dial(), time.Now()
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bridge\r\n\r\n")
		if err := <-ended; err == nil || time.Since(began) > watchAnswerLimit+time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		server.Close()
		<-served
	})
}

func TestListeners_SilentConnection_IsClosed(t *testing.T) {
	eachServer(t, func(t *testing.T, dial func() net.Conn, s *http.Server) {
		conn := dial()
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bridge\r\n\r\n")
		if got := answer(conn); !strings.HasPrefix(got, "200") {
			t.Error(got)
		}
		began := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || time.Since(began).Round(time.Minute) != idleLimit {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestListeners_HeaderTooLarge_IsRefused(t *testing.T) {
	eachServer(t, func(t *testing.T, dial func() net.Conn, s *http.Server) {
		conn := dial()
		defer conn.Close()
		go func() {
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bridge\r\nX: "+strings.Repeat("x", 2*maxHeader)+"\r\n\r\n")
		}()
		if got := answer(conn); !strings.HasPrefix(got, "431") {
			t.Error(got)
		}
	})
}

func TestHomeserverListener_SlowLinkAndLongHold_IsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := homeserverServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			time.Sleep(testHold)
			fmt.Fprintf(w, "%d %v %v", n, err, r.Context().Err())
		}), testHold, zerolog.Nop())
		l := pipenet.Listen()
		served := goServe(server, l)
		conn := l.Dial()
		defer conn.Close()
		const size, piece = 64 << 20, 1 << 20
		_, _ = fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: bridge\r\nContent-Length: %d\r\n\r\n", size)
		for sent := 0; sent < size; sent += piece {
			time.Sleep(bodyLimit / (size/piece + 4)) // about 2 Mbit/s
			if _, err := conn.Write(make([]byte, piece)); err != nil {
				t.Fatalf("cut off after %d bytes: %v", sent, err)
			}
		}
		if got := answer(conn); got != fmt.Sprintf("200 %d <nil> <nil>", size) {
			t.Error(got)
		}
		server.Close()
		<-served
	})
}
