package proxy

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// canSendFiles tells whether the kernel sends a file to a connection.
const canSendFiles = true

// sendFile sends what is held back, and the part behind it.
func (c *conn) sendFile(p *part) (sent int64, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	head := c.held
	c.holding, c.held = false, c.held[:0]
	var failure error
	err = raw.Write(func(fd uintptr) bool {
		var wait bool
		if head, wait, failure = sendHead(int(fd), head); wait || failure != nil {
			return !wait
		}
		for p.left > 0 && failure == nil {
			n, err := syscall.Sendfile(int(fd), p.fd, &p.at, int(min(p.left, maxPiece)))
			switch {
			case err == syscall.EINTR:
			case err == syscall.EAGAIN:
				return false
			case err != nil:
				failure = err
			case n == 0: // somebody cut the file
				failure = io.ErrUnexpectedEOF
			default:
				sent += int64(n)
				p.left -= int64(n)
				failure = p.moved(int64(n))
			}
		}
		return true
	})
	if failure != nil {
		err = failure
	}
	return sent, err
}

// sendHead sends bytes that more will follow at once, and returns those that are left.
func sendHead(fd int, head []byte) (left []byte, wait bool, err error) {
	for len(head) > 0 {
		n, err := unix.SendmsgN(fd, head, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return head, true, nil
		case err != nil:
			return head, false, err
		default:
			head = head[n:]
		}
	}
	return nil, false, nil
}
