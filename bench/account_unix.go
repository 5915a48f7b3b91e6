//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is whom PostgreSQL runs as: it refuses to run as root. The zero value is the present user.
type account struct {
	credential *syscall.Credential
}

// unprivileged gives the account of this process, or of root's some other, to which home then belongs. The folders above
// it are opened for passing through.
func unprivileged(home string, above ...string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUser := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGroup := strconv.ParseUint(u.Gid, 10, 32)
		if errUser != nil || errGroup != nil {
			continue
		}
		for _, dir := range above {
			if err = os.Chmod(dir, 0o711); err != nil {
				return account{}, err
			}
		}
		a := account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		return a, a.own(home)
	}
	return account{}, errors.New("it does not run as root, and there is no user postgres or nobody")
}

func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	if err := os.Chown(path, int(a.credential.Uid), int(a.credential.Gid)); err != nil {
		return fmt.Errorf("give %s to PostgreSQL's user: %w", path, err)
	}
	return nil
}

func (a account) apply(cmd *exec.Cmd) {
	if a.credential != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential}
	}
}
