//go:build linux

package powerloss

var watchedHere []uint32
