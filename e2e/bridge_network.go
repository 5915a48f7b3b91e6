package e2e

import "maps"

// networkSection is the `network:` section of the bridge's configuration. The bucket against flooding is wide open, since
// these servers do not mind and tests would wait for nothing.
func networkSection(nick string, opts BridgeOptions) map[string]any {
	section := map[string]any{
		"address":   opts.IRC.Address,
		"tls":       map[string]any{"enabled": false},
		"nick":      nick,
		"username":  nick,
		"realname":  "Matrix bridge under test",
		"flood":     map[string]any{"burst": 20, "interval": "50ms"},
		"reconnect": map[string]any{"first": "200ms", "max": "2s"},
	}
	if opts.TLS {
		section["address"] = opts.IRC.TLS
		section["tls"] = map[string]any{"enabled": true, "ca_file": opts.IRC.CAFile}
	}
	maps.Copy(section, opts.Network)
	return section
}
