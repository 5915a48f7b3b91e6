//go:build linux && (amd64 || arm64)

package powerloss

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trestle-bridge/trestle/bench/internal/seccomp"
)

// ErrBehind: a file was changed by a call that is not watched, so that what would be left of it is not known.
var ErrBehind = errors.New("changed by a call that is not watched")

// Kind is what an [Op] does.
type Kind uint8

const (
	Write    Kind = iota // pwrite
	Truncate             // ftruncate
	Sync                 // fsync or fdatasync of a file
	SyncDir              // fsync of the folder
	Entry                // unlink or rename, of whatever
)

// Op is a call of the program that is about to be carried out.
type Op struct {
	Kind   Kind
	Name   string // of the file, without its folder; empty for SyncDir and Entry
	Offset int64  // in bytes, of a Write; the new length of a Truncate
	Size   int    // of a Write
}

// identity names a file whatever its name is.
type identity struct{ dev, ino uint64 }

// file is a file of the folder, or one that was in it. Its handle keeps its content from going with its last name.
type file struct {
	name    string
	handle  *os.File
	durable []byte
	pending []change // since the last sync, all of them carried out
}

// Disk is a folder that forgets. Its methods may be called from any goroutine, and [Disk.Restore] when the program has ended.
type Disk struct {
	folder string
	self   identity

	mu       sync.Mutex
	files    map[identity]*file
	entries  map[string]identity // the folder as it was last synced
	match    func(Op) bool
	cut      chan struct{}
	isCut    bool
	inFlight *file  // what the power was cut in
	torn     change // and the write that may have got through in part
	fault    error

	listener *seccomp.Listener // nil while no program runs
}

// New watches a folder. What is in it is durable. [seccomp.ErrUnsupported] says that it cannot be done on this system;
// [Disk.Start] may say so as well.
func New(folder string) (*Disk, error) {
	folder, err := filepath.EvalSymlinks(folder)
	if err == nil {
		folder, err = filepath.Abs(folder)
	}
	if err != nil {
		return nil, fmt.Errorf("watching a folder: %w", err)
	}
	if err = seccomp.Supported(); err != nil {
		return nil, err
	}
	d := &Disk{folder: folder, cut: make(chan struct{})}
	var st unix.Stat_t
	if err = unix.Stat(folder, &st); err != nil {
		return nil, fmt.Errorf("watching the folder %s: %w", folder, err)
	}
	d.self = identity{st.Dev, st.Ino}
	if err = d.begin(); err != nil {
		d.forget()
		return nil, fmt.Errorf("watching the folder %s: %w", folder, err)
	}
	return d, nil
}

// CutBefore has the power cut before the first call for which match is true. match replaces the one given before; it runs
// on the goroutine that answers the calls, one at a time, and must not call the disk.
func (d *Disk) CutBefore(match func(Op) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.match = match
}

// Lost is closed when the power is cut, by [Disk.CutBefore] or [Disk.Cut]. After [Disk.Restore] it is another one.
func (d *Disk) Lost() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut
}

// Cut cuts the power now.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutPower()
}

func (d *Disk) cutPower() {
	if !d.isCut {
		d.isCut = true
		close(d.cut)
	}
}

// volatile files live in memory, and their content means nothing after a start.
func volatile(name string) bool { return strings.HasSuffix(name, "-shm") }

// begin takes what is in the folder as durable.
func (d *Disk) begin() (err error) {
	d.files = map[identity]*file{}
	d.match, d.inFlight, d.torn, d.fault = nil, nil, change{}, nil
	if d.isCut {
		d.isCut, d.cut = false, make(chan struct{})
	}
	if d.entries, err = d.scan(); err != nil {
		return err
	}
	for _, f := range d.files {
		if f.durable, err = f.content(); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) forget() {
	for _, f := range d.files {
		_ = f.handle.Close()
	}
	d.files = nil
}

// scan gives the names in the folder and knows their files from now on.
func (d *Disk) scan() (map[string]identity, error) {
	list, err := os.ReadDir(d.folder)
	if err != nil {
		return nil, err
	}
	names := map[string]identity{}
	for _, entry := range list {
		if !entry.Type().IsRegular() || volatile(entry.Name()) {
			continue
		}
		path := filepath.Join(d.folder, entry.Name())
		var st unix.Stat_t
		if err = unix.Stat(path, &st); errors.Is(err, unix.ENOENT) {
			continue
		} else if err != nil {
			return nil, err
		}
		id := identity{st.Dev, st.Ino}
		if _, err = d.know(id, entry.Name(), path); err != nil {
			return nil, err
		}
		names[entry.Name()] = id
	}
	return names, nil
}

// know gives the file; one that was not known is new, and nothing of it is durable.
func (d *Disk) know(id identity, name, path string) (*file, error) {
	if f := d.files[id]; f != nil {
		return f, nil
	}
	handle, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	f := &file{name: name, handle: handle}
	d.files[id] = f
	return f, nil
}

func (f *file) content() ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f.handle, 0, math.MaxInt64))
}

func (f *file) sync() {
	for _, c := range f.pending {
		f.durable = c.apply(f.durable)
	}
	f.pending = nil
}

// Restore makes the folder what it is after the power was lost, which it now is at the latest, and gives the number of
// blocks, truncations and changes of the folder that were forgotten. The program must have ended. What is in the folder
// then is durable, and another program can be started in it. [ErrBehind] says that it is not known what would be left.
func (d *Disk) Restore(loss Loss) (forgotten int, err error) {
	d.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if forgotten, err = d.restore(loss); err != nil {
		err = fmt.Errorf("losing power over %s: %w", d.folder, err)
	}
	return forgotten, err
}

func (d *Disk) restore(loss Loss) (forgotten int, err error) {
	if d.fault != nil {
		return 0, d.fault
	}
	now, err := d.scan()
	if err != nil {
		return 0, err
	}
	left := map[identity][]byte{}
	for id, f := range d.files {
		if err = f.verify(); err != nil {
			return 0, err
		}
		pending := f.pending
		if f == d.inFlight {
			pending = append(pending, d.torn)
		}
		n := 0
		left[id], n = loss.remains(f.durable, pending)
		forgotten += n
	}
	names, n := loss.names(d.entries, now)
	if err = d.replace(names, left, loss); err != nil {
		return 0, err
	}
	d.forget()
	return forgotten + n, d.begin()
}

// verify makes sure that every change of a file is known.
func (f *file) verify() error {
	want := append([]byte(nil), f.durable...)
	for _, c := range f.pending {
		want = c.apply(want)
	}
	got, err := f.content()
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s: %w", f.name, ErrBehind)
	}
	return err
}

// names gives what is in the folder, of what was there when it was synced and what was there at the end.
func (l Loss) names(synced, last map[string]identity) (left map[string]identity, forgotten int) {
	left = map[string]identity{}
	all := map[string]bool{}
	for name := range synced {
		all[name] = true
	}
	for name := range last {
		all[name] = true
	}
	for name := range all {
		before, wasThere := synced[name]
		after, isThere := last[name]
		id, there := after, isThere
		if (wasThere != isThere || before != after) && !l.keeps() {
			forgotten++
			id, there = before, wasThere
		}
		if there {
			left[name] = id
		}
	}
	return left, forgotten
}

// replace puts new files into the folder instead of those that are there.
func (d *Disk) replace(names map[string]identity, content map[identity][]byte, loss Loss) error {
	list, err := os.ReadDir(d.folder)
	if err != nil {
		return err
	}
	for _, entry := range list {
		if !entry.Type().IsRegular() {
			continue
		}
		path := filepath.Join(d.folder, entry.Name())
		if volatile(entry.Name()) && loss.keeps() {
			if err = garble(path); err != nil {
				return err
			}
			continue
		}
		if err = os.Remove(path); err != nil {
			return err
		}
	}
	for name, id := range names {
		if err = os.WriteFile(filepath.Join(d.folder, name), content[id], 0o600); err != nil {
			return err
		}
	}
	return nil
}

func garble(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	b := make([]byte, info.Size())
	_, _ = rand.Read(b)
	return os.WriteFile(path, b, 0o600)
}
