package e2e

import "maps"

// networkSection is the `network:` section of the bridge's configuration. The bucket against flooding is wide open, since
// these servers do not mind and tests would wait for nothing.
func networkSection(nick string, opts BridgeOptions) map[string]any {
	section := map[string]any{
		"address": opts.IRC.Address,
		"tls":     false,
		"nick":    nick,
	}
	if opts.TLS {
		section["address"] = opts.IRC.TLS
		section["tls"] = true
		section["tls_ca"] = opts.IRC.CAFile
	}
	maps.Copy(section, opts.Network)
	return section
}
