//go:build !unix

package main

import (
	"os"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

// terminate: there is no signal to ask with.
func terminate(p *os.Process) error { return p.Kill() }
