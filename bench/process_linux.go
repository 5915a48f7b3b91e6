package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// memory gives the process's resident memory now and at its largest, in bytes.
func (c *child) memory() (now, peak int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			now = kib << 10
		case "VmHWM:":
			peak = kib << 10
		}
	}
	return now, peak
}

// clockTick is USER_HZ, which is 100 wherever Go runs on Linux.
const clockTick = time.Second / 100

// cpu gives the processor time that the process has taken, its own and the kernel's for it.
func (c *child) cpu() time.Duration { return cpuOf(c.cmd.Process.Pid) }

// cpuWithChildren is the same of a process that lets others work for it.
func (c *child) cpuWithChildren() time.Duration {
	pid := c.cmd.Process.Pid
	all := cpuOf(pid)
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // not every kernel has it
	for field := range strings.FieldsSeq(string(b)) {
		if worker, err := strconv.Atoi(field); err == nil {
			all += cpuOf(worker)
		}
	}
	return all
}

// forgetPeak lets memory give the largest from now on.
func (c *child) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", c.cmd.Process.Pid), []byte("5"), 0)
}

func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is the program's name in parentheses, which may hold anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick
}

// datasync makes what was written to a file durable, without its times.
func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// fileSystem names what a folder lies on.
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	for _, known := range []struct {
		magic int64
		name  string
	}{
		{unix.EXT4_SUPER_MAGIC, "ext4"}, {unix.XFS_SUPER_MAGIC, "xfs"}, {unix.BTRFS_SUPER_MAGIC, "btrfs"}, {unix.F2FS_SUPER_MAGIC, "f2fs"},
		{unix.OVERLAYFS_SUPER_MAGIC, "overlayfs"}, {unix.TMPFS_MAGIC, tmpfs}, {unix.RAMFS_MAGIC, tmpfs}, {unix.NFS_SUPER_MAGIC, "nfs"},
		{0x2fc12fc1, "zfs"},
	} {
		if int64(s.Type) == known.magic {
			return known.name
		}
	}
	return fmt.Sprintf("type 0x%x", s.Type)
}
