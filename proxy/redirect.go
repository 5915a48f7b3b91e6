package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

const maxHops = 5

// errPrivateAddress says that a redirect led to an address that is not public.
var errPrivateAddress = errors.New("redirect to an address that is not public")

// newRedirectClient makes the client for redirect targets. It knows no token, keeps no cookies, goes through no proxy, and looks at each address when it
// dials, after the name was resolved, so that a name cannot resolve to something else between the check and the connection.
func newRedirectClient(homeserver http.RoundTripper, allowed []netip.Prefix) *http.Client {
	dialer := &net.Dialer{
		Timeout: 10 * time.Second,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return checkDial(address, allowed)
		},
	}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	// Certificate authorities are the administrator's; client certificates are for the homeserver, and are not taken along.
	if t, ok := homeserver.(*http.Transport); ok && t.TLSClientConfig != nil && t.TLSClientConfig.RootCAs != nil {
		transport.TLSClientConfig = &tls.Config{RootCAs: t.TLSClientConfig.RootCAs, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: transport, CheckRedirect: oneAnswer}
}

// oneAnswer keeps net/http from following redirects: it would take the token along to any port of the same host.
func oneAnswer(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func checkDial(address string, allowed []netip.Prefix) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %s", errPrivateAddress, address)
	}
	addr := at.Addr()
	if addr.Zone() == "" && within(addr.Unmap(), allowed) {
		return nil
	}
	if !isPublic(addr) {
		return fmt.Errorf("%w: %s", errPrivateAddress, addr)
	}
	return nil
}

// notPublic are the networks that the IANA special-purpose registries (RFC 6890) do not call globally reachable, and those that carry another
// address inside, through which any of the others can be reached.
var notPublic = func() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8",       // this network
		"10.0.0.0/8",      // private
		"100.64.0.0/10",   // CGNAT
		"127.0.0.0/8",     // loopback
		"169.254.0.0/16",  // link-local, where clouds keep their metadata
		"172.16.0.0/12",   // private
		"192.0.0.0/24",    // protocol assignments
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // 6to4 relays
		"192.168.0.0/16",  // private
		"198.18.0.0/15",   // benchmarks
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"224.0.0.0/4",     // multicast
		"240.0.0.0/4",     // reserved, broadcast
		"2001::/23",       // protocol assignments, Teredo among them
		"2001:db8::/32",   // documentation
		"2002::/16",       // 6to4
		"3fff::/20",       // documentation
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

// globalUnicast is all that IANA has given out of IPv6. NAT64 (64:ff9b::/96, 64:ff9b:1::/48), loopback, unique local, link-local and multicast are outside.
var globalUnicast = netip.MustParsePrefix("2000::/3")

func isPublic(addr netip.Addr) bool {
	if !addr.IsValid() || addr.Zone() != "" {
		return false
	}
	addr = addr.Unmap()
	if addr.Is6() && !globalUnicast.Contains(addr) {
		return false
	}
	return !within(addr, notPublic)
}
