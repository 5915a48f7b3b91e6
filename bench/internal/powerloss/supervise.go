//go:build linux && (amd64 || arm64)

package powerloss

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Start starts a program whose calls this disk answers. One at a time: [Disk.Restore] or [Disk.Close] comes before the next.
func (d *Disk) Start(cmd *exec.Cmd) error {
	stopped, stop, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	started := make(chan error)
	done := make(chan struct{})
	go func() {
		// Never unlocked: the thread has the filter for good, and ends with the goroutine.
		runtime.LockOSThread()
		listener, err := install()
		if err != nil {
			_ = stopped.Close()
			close(done)
			started <- err
			return
		}
		go func() {
			defer close(done)
			d.supervise(listener, stopped)
		}()
		started <- cmd.Start()
	}()
	err = <-started
	d.mu.Lock()
	d.stop, d.done = stop, done
	d.mu.Unlock()
	if err != nil {
		d.Close()
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return nil
}

// Close stops answering. A program that still runs gets errors from the watched calls.
func (d *Disk) Close() {
	d.mu.Lock()
	stop, done := d.stop, d.done
	d.stop, d.done = nil, nil
	d.mu.Unlock()
	if stop != nil {
		_ = stop.Close()
		<-done
	}
}

// supervise answers calls until the other end of stopped is closed.
func (d *Disk) supervise(listener int, stopped *os.File) {
	defer stopped.Close()
	defer unix.Close(listener)
	// Fd makes the pipe blocking, which is all the same to poll.
	events := []unix.PollFd{{Fd: int32(stopped.Fd()), Events: unix.POLLIN}, {Fd: int32(listener), Events: unix.POLLIN}}
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
		n, err := receive(listener)
		if err != nil {
			continue // its thread was killed
		}
		if a, ok := d.handle(n); ok {
			send(listener, a)
		}
	}
}

// handle carries out a call and gives what it returns, or nothing when the power is cut.
func (d *Disk) handle(n notification) (a answer, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isCut {
		return answer{}, false
	}
	pass := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	c, err := d.understand(n)
	if err != nil {
		d.fault = errors.Join(d.fault, fmt.Errorf("following a call: %w", err))
		return pass, true
	}
	if c == nil {
		return pass, true
	}
	if d.match != nil && d.match(c.op) {
		if c.op.Kind == Write {
			d.inFlight, d.torn = c.file, c.change
		}
		d.cutPower()
		return answer{}, false
	}
	if c.op.Kind == Entry {
		// A file that loses its last name must be known before.
		if _, err = d.scan(); err != nil {
			d.fault = errors.Join(d.fault, err)
		}
		return pass, true
	}
	value, err := d.carryOut(c)
	a = answer{id: n.id, value: value}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		a.errno = -int32(errno)
	} else if err != nil {
		a.errno = -int32(unix.EIO)
	}
	return a, true
}

// call is a watched call that concerns the folder.
type call struct {
	op     Op
	file   *file
	change change // of a write or truncation
}

// understand gives nil when the call is none of this disk's business.
func (d *Disk) understand(n notification) (*call, error) {
	switch uint32(n.nr) {
	case unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC:
	default:
		return &call{op: Op{Kind: Entry}}, nil
	}
	link := fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(n.args[0]))
	var st unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return nil, nil // not open: the kernel says so itself
	}
	id := identity{st.Dev, st.Ino}
	if id == d.self {
		return &call{op: Op{Kind: SyncDir}}, nil
	}
	f := d.files[id]
	if f == nil {
		path, err := os.Readlink(link)
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || filepath.Dir(path) != d.folder || volatile(path) {
			return nil, err
		}
		if f, err = d.know(id, filepath.Base(path), link); err != nil {
			return nil, err
		}
	}
	c := &call{file: f, op: Op{Kind: Sync, Name: f.name}}
	switch uint32(n.nr) {
	case unix.SYS_PWRITE64:
		data, err := memory(n.pid, n.args[1], n.args[2])
		if err != nil {
			return nil, err
		}
		c.change = change{offset: int64(n.args[3]), data: data}
		c.op.Kind, c.op.Offset, c.op.Size = Write, c.change.offset, len(data)
	case unix.SYS_FTRUNCATE:
		c.change = change{offset: int64(n.args[1])}
		c.op.Kind, c.op.Offset = Truncate, c.change.offset
	}
	return c, nil
}

func (d *Disk) carryOut(c *call) (value int64, err error) {
	switch c.op.Kind {
	case SyncDir:
		names, err := d.scan()
		if err == nil {
			d.entries = names
		}
		return 0, err
	case Sync:
		c.file.sync()
		return 0, nil
	case Truncate:
		if err = c.file.handle.Truncate(c.change.offset); err == nil {
			c.file.pending = append(c.file.pending, c.change)
		}
		return 0, err
	default:
		n, err := c.file.handle.WriteAt(c.change.data, c.change.offset)
		if n > 0 {
			c.file.pending = append(c.file.pending, change{c.change.offset, c.change.data[:n]})
			return int64(n), nil
		}
		return 0, err
	}
}

// memory reads what a thread that waits for us wants to write.
func memory(pid uint32, at, size uint64) ([]byte, error) {
	b := make([]byte, size)
	if size == 0 {
		return b, nil
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(int(size))
	n, err := unix.ProcessVMReadv(int(pid), local, []unix.RemoteIovec{{Base: uintptr(at), Len: int(size)}}, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		err = fmt.Errorf("%w, or no right to read its program's memory: %w", ErrUnsupported, err)
	}
	if err == nil && uint64(n) != size {
		err = fmt.Errorf("%d of %d bytes", n, size)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the memory of the program: %w", err)
	}
	return b, nil
}
