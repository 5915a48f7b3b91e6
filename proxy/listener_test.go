package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trestle-bridge/trestle/internal/pipenet"
)

// listening runs a test against Serve with the limits that it has, in a bubble's time.
func listening(t *testing.T, test func(t *testing.T, conn net.Conn)) {
	keys, err := StaticKeys(testKey(7)) // and no store: a database's goroutines are not in the bubble
	if err != nil {
		t.Fatal(err)
	}
	server, err := NewServer(ServerConfig{HomeserverURL: "http://localhost:1", Token: testToken, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		l, served := pipenet.Listen(), make(chan error, 1)
		go func() { served <- server.Serve(ctx, l) }()
		conn := l.Dial()
		test(t, conn)
		_ = conn.Close()
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func status(conn net.Conn) string {
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err.Error()
	}
	_, _ = io.Copy(io.Discard, response.Body)
	return response.Status
}

// ends says how long it takes until the connection is gone.
func ends(conn net.Conn) time.Duration {
	began := time.Now()
	_ = conn.SetReadDeadline(began.Add(time.Hour))
	_, _ = io.Copy(io.Discard, conn)
	return time.Since(began)
}

func TestServe_SlowHeader_IsCutOff(t *testing.T) {
	listening(t, func(t *testing.T, conn net.Conn) {
		began := time.Now()
		_, err := io.WriteString(conn, "GET /robots.txt HTTP/1.1\r\nHost: bridge\r\nX: ")
		for err == nil && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			_, err = io.WriteString(conn, "x")
		}
		if took := time.Since(began); err == nil || took > 15*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

func TestServe_BodyThatStalls_IsCutOff(t *testing.T) {
	listening(t, func(t *testing.T, conn net.Conn) {
		_, _ = io.WriteString(conn, "GET /robots.txt HTTP/1.1\r\nHost: bridge\r\nContent-Length: 1000\r\n\r\nabc")
		if took := ends(conn); took > 10*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestServe_ConnectionBetweenRequests_IsKeptForAMinute(t *testing.T) {
	listening(t, func(t *testing.T, conn net.Conn) {
		for range 2 {
			_, _ = io.WriteString(conn, "GET /robots.txt HTTP/1.1\r\nHost: bridge\r\n\r\n")
			if got := status(conn); !strings.HasPrefix(got, "200") {
				t.Fatal(got)
			}
			time.Sleep(50 * time.Second)
		}
		if took := ends(conn); took > 15*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

func TestServe_ReaderWhoDoesNotReadARefusal_IsLetGo(t *testing.T) {
	for _, request := range []string{"GET /m/none HTTP/1.1\r\nHost: bridge\r\n\r\n", "HEAD /robots.txt HTTP/1.1\r\nHost: bridge\r\n\r\n", "nonsense\r\n\r\n"} {
		listening(t, func(t *testing.T, conn net.Conn) {
			_, _ = io.WriteString(conn, request)
			time.Sleep(time.Minute) // the pipe holds nothing: whatever is written waits for the reader
			_ = conn.SetReadDeadline(time.Now().Add(time.Hour))
			if answer, err := io.ReadAll(conn); len(answer) != 0 {
				t.Errorf("%q still had its answer waiting after a minute: %q %v", request, answer, err)
			}
		})
	}
}

// What is in the request line besides the path, and who the reader says that he speaks to, decides nothing.
func TestProxy25_OddTargets_AreTheirPathsOrNothing(t *testing.T) {
	s := newStoredStage(t, known)
	addr, link := s.serve(), s.link(photo())
	text := s.page(longText())
	for _, c := range []struct {
		request string
		status  int
	}{
		{"GET " + link + " HTTP/1.0\r\n", 200},
		{"GET " + link + " HTTP/1.0\r\nConnection: keep-alive\r\n", 200},
		{"GET http://other.example" + link + " HTTP/1.1\r\nHost: other.example\r\n", 200},
		{"GET http://other.example" + text + " HTTP/1.1\r\nHost: other.example\r\nX-Forwarded-Host: other.example\r\nAccept: text/html\r\n", 200},
		{"GET //other.example" + link + " HTTP/1.1\r\nHost: x\r\n", 404},
		{"GET /." + link + " HTTP/1.1\r\nHost: x\r\n", 404},
		{"GET /m/.." + link + " HTTP/1.1\r\nHost: x\r\n", 404},
		{"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\n", 404},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\n", 404},
		{"OPTIONS " + link + " HTTP/1.1\r\nHost: x\r\nOrigin: https://other.example\r\n", 204},
		{"GET " + link + " HTTP/1.1\r\n", 400},
		{"GET " + link + " HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n", 400},
		{"GET " + link + "\x00 HTTP/1.1\r\nHost: x\r\n", 400},
	} {
		conn, in := dial(t, addr)
		io.WriteString(conn, c.request+"\r\n")
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Errorf("%q: %v", c.request, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != c.status || strings.Contains(fmt.Sprint(resp.Header, string(body)), "other.example") {
			t.Errorf("%q is answered %d %v", c.request, resp.StatusCode, resp.Header)
		}
		if c.status != 400 {
			wantHeader(t, resp, "X-Content-Type-Options", "nosniff")
		}
		conn.Close()
	}
}
