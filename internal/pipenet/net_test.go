package pipenet_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/trestle-bridge/trestle/internal/pipenet"
)

func TestNet_WhoListens_IsReachedUntilItCloses(t *testing.T) {
	n := pipenet.NewNet()
	l, err := n.Listen("tcp", "door:1")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	}()
	network, own := pipenet.From(pipenet.With(t.Context(), n))
	c, err := network.DialContext(t.Context(), "tcp", "door:1")
	if err != nil || !own {
		t.Fatal(own, err)
	}
	if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := n.Listen("tcp", "door:1"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the same address once more: %v", err)
	}
	l.Close()
	if _, err := network.DialContext(t.Context(), "tcp", "door:1"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("after the end: %v", err)
	}
	l, err = n.Listen("tcp", "door:1")
	if err != nil {
		t.Fatalf("the address is not free again: %v", err)
	}
	l.Close()
}

func TestNet_NobodyAccepts_DialingEndsWithItsContext(t *testing.T) {
	n := pipenet.NewNet()
	l, err := n.Listen("tcp", "door:1")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.DialContext(ctx, "tcp", "door:1"); err != context.Canceled {
		t.Error(err)
	}
}

func TestFrom_ContextWithoutANetwork_IsTheMachines(t *testing.T) {
	if _, own := pipenet.From(context.Background()); own {
		t.Error("there is none")
	}
}
