//go:build unix && !linux

package main

import "syscall"

// attributes: Ctrl-C goes to the demo, which stops the bridge in its turn.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
