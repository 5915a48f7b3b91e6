//go:build !linux

package ports

import (
	"fmt"
	"net"
)

// Reserve finds a port of 127.0.0.1 that was free a moment ago. Only on Linux is it kept.
func Reserve() (address string, release func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("reserve a port: %w", err)
	}
	return l.Addr().String(), func() {}, l.Close()
}
