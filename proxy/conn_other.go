//go:build !linux

package proxy

import "errors"

// canSendFiles tells whether the kernel sends a file to a connection: here it is read and written.
const canSendFiles = false

func (c *conn) sendFile(*part) (int64, error) { return 0, errors.ErrUnsupported }
