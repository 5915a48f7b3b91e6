// Package irc is the IRC client behind the bridge.
package irc
