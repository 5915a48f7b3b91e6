//go:build linux && (amd64 || arm64)

package seccomp

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Call is a call that waits for its answer, which may come from any goroutine. A call that gets none waits until its
// thread is killed, or until [Listener.Close], which makes it fail.
type Call struct {
	Thread uint32    // that made it, for /proc and process_vm_readv(2)
	Number uint32    // unix.SYS_…
	Args   [6]uint64 // as the call's manual page has them

	id       uint64
	listener *Listener
}

// Continue lets the kernel carry the call out.
func (c *Call) Continue() {
	c.listener.send(answer{id: c.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// Return has the call return a value, or fail when errno is not 0, without the kernel's carrying it out.
func (c *Call) Return(value int64, errno unix.Errno) {
	c.listener.send(answer{id: c.id, value: value, errno: -int32(errno)})
}

// Listener is where the calls of a thread, and of the programs that it started, are answered.
type Listener struct {
	stop *os.File
	done chan struct{}

	mu     sync.RWMutex // of fd, whose number is somebody else's once it is closed
	fd     int
	closed bool
}

// Start runs begin, which may start programs, on a thread of its own, and gives each call with one of these numbers to
// handle. The listener is to be closed when the programs have ended. Errors are [ErrUnsupported], and that of begin.
func Start(numbers []uint32, begin func() error, handle func(*Call)) (*Listener, error) {
	stopped, stop, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l := &Listener{stop: stop, done: make(chan struct{})}
	begun := make(chan error)
	go func() {
		// Never unlocked: the thread has the filter for good, and ends with the goroutine.
		runtime.LockOSThread()
		fd, err := install(numbers)
		if err != nil {
			_ = stopped.Close()
			close(l.done)
			begun <- err
			return
		}
		l.fd = fd
		go func() {
			defer close(l.done)
			l.supervise(stopped, handle)
		}()
		begun <- begin()
	}()
	if err = <-begun; err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close stops answering. A program that still runs gets errors from these calls.
func (l *Listener) Close() {
	_ = l.stop.Close()
	<-l.done
}

// supervise hands calls over until the other end of stopped is closed.
func (l *Listener) supervise(stopped *os.File, handle func(*Call)) {
	defer stopped.Close()
	defer l.close()
	// Fd makes the pipe blocking, which is all the same to poll.
	events := []unix.PollFd{{Fd: int32(stopped.Fd()), Events: unix.POLLIN}, {Fd: int32(l.fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(events, -1); err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("poll of a seccomp listener: %v", err)) // by the manual it cannot be
		} else if err != nil {
			continue
		}
		if events[0].Revents != 0 {
			return
		}
		if events[1].Revents&unix.POLLIN == 0 {
			events = events[:1] // everybody with the filter is gone
			continue
		}
		n, err := receive(l.fd)
		if err != nil {
			continue // its thread was killed
		}
		handle(&Call{Thread: n.pid, Number: uint32(n.nr), Args: n.args, id: n.id, listener: l})
	}
}

func (l *Listener) send(a answer) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if !l.closed {
		send(l.fd, a)
	}
}

func (l *Listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	_ = unix.Close(l.fd)
}
