//go:build !linux

package main

import (
	"os"
	"time"
)

// What only Linux tells is left out of the report elsewhere.

func (c *child) memory() (now, peak int64) { return 0, 0 }
func (c *child) cpu() time.Duration        { return 0 }
func fileSystem(string) string             { return "unknown" }

func (c *child) cpuWithChildren() time.Duration { return 0 }
func (c *child) forgetPeak() error              { return nil }

func datasync(f *os.File) error { return f.Sync() }
