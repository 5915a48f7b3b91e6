//go:build linux && (amd64 || arm64)

package seccomp

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnsupported: this kernel, or what surrounds this process, has no seccomp filters that can be answered from here.
var ErrUnsupported = errors.New("this system has no seccomp user notification")

// Supported says whether the kernel knows how to ask somebody else about a call. What surrounds this process may still
// forbid it, which [Start] says.
func Supported() error {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno != 0 {
		return fmt.Errorf("%w: %w", ErrUnsupported, errno)
	}
	return nil
}

// install puts the filter on this thread, for good, and gives the descriptor by which its calls are answered. Programs
// that the thread starts have the filter too.
func install(numbers []uint32) (listener int, err error) {
	program := filter(numbers)
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("%w: no_new_privs: %w", ErrUnsupported, err)
	}
	// A signal must not send a thread away whose call is being answered: it would come back with the same call.
	// Linux before 5.19 does not know that flag; then a call may be answered twice, which does no harm to syncs, writes and the like.
	for _, flags := range []uintptr{unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0} {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			flags|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
		if errno == 0 {
			return int(fd), nil
		}
		if err = errno; !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	return 0, fmt.Errorf("%w: %w", ErrUnsupported, err)
}

// filter is a classic BPF program over struct seccomp_data: it asks about the calls with these numbers and lets all
// others pass.
func filter(numbers []uint32) []unix.SockFilter {
	const (
		numberAt = 0 // struct seccomp_data: nr, arch, …
		archAt   = 4
	)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	ret := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	ifEqual := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	n := uint8(len(numbers))
	program := []unix.SockFilter{load(archAt), ifEqual(auditArch, 0, n+1), load(numberAt)}
	for i, number := range numbers {
		program = append(program, ifEqual(number, n-uint8(i), 0))
	}
	return append(program, ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_USER_NOTIF))
}

// notification is struct seccomp_notif: a thread waits for an answer about a call.
type notification struct {
	id    uint64
	pid   uint32 // of the thread
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

func receive(listener int) (n notification, err error) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		err = errno
	}
	return n, err
}

// send is without an error: a thread that was killed meanwhile waits for no answer.
func send(listener int, a answer) {
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a)))
}
