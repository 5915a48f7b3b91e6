package pipenet

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Network is where a program listens and whom it reaches: the machine's network, or one within the process.
type Network interface {
	Listen(network, address string) (net.Listener, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Net is a network within the process, with an address for everybody who listens.
type Net struct {
	mu    sync.Mutex
	doors map[string]*door
}

// door is a listener that gives its address back.
type door struct {
	*Listener
	net     *Net
	address string
}

func (d *door) Close() error {
	d.net.mu.Lock()
	if d.net.doors[d.address] == d {
		delete(d.net.doors, d.address)
	}
	d.net.mu.Unlock()
	return d.Listener.Close()
}

// NewNet makes a network on which nobody listens.
func NewNet() *Net { return &Net{doors: map[string]*door{}} }

// Listen takes an address, which is any text.
func (n *Net) Listen(_, address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.doors[address] != nil {
		return nil, fmt.Errorf("listen %s: address already in use", address)
	}
	d := &door{Listen(), n, address}
	n.doors[address] = d
	return d, nil
}

// DialContext reaches who listens on an address.
func (n *Net) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	d := n.doors[address]
	n.mu.Unlock()
	refused := fmt.Errorf("dial %s: connection refused", address)
	if d == nil {
		return nil, refused
	}
	client, server := net.Pipe()
	select {
	case d.conns <- server:
		return client, nil
	case <-d.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type networkKey struct{}

// With gives a network to whoever is started with this context.
func With(ctx context.Context, n Network) context.Context {
	return context.WithValue(ctx, networkKey{}, n)
}

// From is the network that a context has; the machine's, if it has none.
func From(ctx context.Context) (n Network, own bool) {
	if n, own = ctx.Value(networkKey{}).(Network); own {
		return n, true
	}
	return machine{}, false
}

type machine struct{}

func (machine) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

func (machine) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}
