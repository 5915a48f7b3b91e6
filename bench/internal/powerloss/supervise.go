//go:build linux && (amd64 || arm64)

package powerloss

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trestle-bridge/trestle/bench/internal/seccomp"
)

// Start starts a program whose calls this disk answers. One at a time: [Disk.Restore] or [Disk.Close] comes before the next.
func (d *Disk) Start(cmd *exec.Cmd) error {
	listener, err := seccomp.Start(watched, cmd.Start, d.handle)
	if err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener = listener
	return nil
}

// Close stops answering. A program that still runs gets errors from the watched calls.
func (d *Disk) Close() {
	d.mu.Lock()
	listener := d.listener
	d.listener = nil
	d.mu.Unlock()
	if listener != nil {
		listener.Close()
	}
}

// handle carries out a call and answers it, or does neither when the power is cut.
func (d *Disk) handle(asked *seccomp.Call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isCut {
		return
	}
	c, err := d.understand(asked)
	if err != nil {
		d.fault = errors.Join(d.fault, fmt.Errorf("following a call: %w", err))
		asked.Continue()
		return
	}
	if c == nil {
		asked.Continue()
		return
	}
	if d.match != nil && d.match(c.op) {
		if c.op.Kind == Write {
			d.inFlight, d.torn = c.file, c.change
		}
		d.cutPower()
		return
	}
	if c.op.Kind == Entry {
		// A file that loses its last name must be known before.
		if _, err = d.scan(); err != nil {
			d.fault = errors.Join(d.fault, err)
		}
		asked.Continue()
		return
	}
	value, err := d.carryOut(c)
	errno := unix.Errno(0)
	if err != nil && !errors.As(err, &errno) {
		errno = unix.EIO
	}
	asked.Return(value, errno)
}

// call is a watched call that concerns the folder.
type call struct {
	op     Op
	file   *file
	change change // of a write or truncation
}

// understand gives nil when the call is none of this disk's business.
func (d *Disk) understand(asked *seccomp.Call) (*call, error) {
	switch asked.Number {
	case unix.SYS_PWRITE64, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC:
	default:
		return &call{op: Op{Kind: Entry}}, nil
	}
	link := fmt.Sprintf("/proc/%d/fd/%d", asked.Thread, int32(asked.Args[0]))
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
	switch asked.Number {
	case unix.SYS_PWRITE64:
		data, err := memory(asked.Thread, asked.Args[1], asked.Args[2])
		if err != nil {
			return nil, err
		}
		c.change = change{offset: int64(asked.Args[3]), data: data}
		c.op.Kind, c.op.Offset, c.op.Size = Write, c.change.offset, len(data)
	case unix.SYS_FTRUNCATE:
		c.change = change{offset: int64(asked.Args[1])}
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
		err = fmt.Errorf("%w, or no right to read its program's memory: %w", seccomp.ErrUnsupported, err)
	}
	if err == nil && uint64(n) != size {
		err = fmt.Errorf("%d of %d bytes", n, size)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the memory of the program: %w", err)
	}
	return b, nil
}
