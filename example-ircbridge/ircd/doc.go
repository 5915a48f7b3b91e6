// Package ircd is an IRC server in process, for tests and for the demo.
package ircd
