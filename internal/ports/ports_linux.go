package ports

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Reserve finds a free port of 127.0.0.1 and keeps it until release is called. Listening on it works all the while, as
// long as it is done with SO_REUSEADDR, which package net and every usual server set; connecting to it, while nobody
// listens, is refused.
func Reserve() (address string, release func(), err error) {
	// Linux gives a port that is bound to nobody who does not ask for it by its number; and to a listener who does,
	// beside sockets that do not listen, when all of them have SO_REUSEADDR (socket(7), ip(7)).
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("reserve a port: %w", err)
	}
	loopback := unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &loopback)
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return "", nil, fmt.Errorf("reserve a port: %w", err)
	}
	port := uint16(bound.(*unix.SockaddrInet4).Port)
	return netip.AddrPortFrom(netip.AddrFrom4(loopback.Addr), port).String(), func() { _ = unix.Close(fd) }, nil
}
