// Package ports keeps TCP ports of the loopback for servers that start later, or stop and come back: what tests need
// whose configuration names a port before anybody listens on it.
//
// To listen on port 0, look at the number and close again keeps nothing: until the server listens, any other program may
// be given the same port, for a listener or for its end of a connection. A reserved port is bound all the time.
//
//	address, release, err := ports.Reserve()
//	defer release()
//	… // any number of times: a server listens on address, and ends
package ports
