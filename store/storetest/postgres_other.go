//go:build !unix

package storetest

import "syscall"

// unprivileged: the server is run as whoever runs the test.
func unprivileged(...string) (*syscall.SysProcAttr, error) { return nil, nil }
