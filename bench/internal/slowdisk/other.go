//go:build !linux || !(amd64 || arm64)

package slowdisk

import (
	"errors"
	"time"
)

// ErrUnsupported: syncs cannot be made slower on this system.
var ErrUnsupported = errors.New("only Linux on amd64 and arm64 can make syncs slower")

// Disk is where the syncs of programs take longer.
type Disk struct{}

// Start says [ErrUnsupported].
func Start(time.Duration, func() error) (*Disk, error) { return nil, ErrUnsupported }

// Close does nothing.
func (*Disk) Close() {}
