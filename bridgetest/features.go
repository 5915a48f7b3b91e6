package bridgetest

import "errors"

// getVersions names nothing of what appservices need to know: features must be tried.
func (hs *Homeserver) getVersions(c *call) (any, error) {
	cacheable(c)
	versions := []string{
		"r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4",
		"v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
	}
	features := map[string]bool{
		"org.matrix.e2e_cross_signing": true, "org.matrix.msc2285.stable": true, "fi.mau.msc2659.stable": true,
		"org.matrix.msc3916.stable": true,
	}
	if hs.traits.family == dendrite {
		versions = versions[:10]
		features = map[string]bool{"org.matrix.e2e_cross_signing": true, "org.matrix.msc2285.stable": true, "org.matrix.msc3916.stable": true}
	}
	return map[string]any{"versions": versions, "unstable_features": features}, nil
}

// cacheable marks an answer that is everybody's.
func cacheable(c *call) {
	c.ResponseWriter.Header().Set("Cache-Control", "public, max-age=600, s-maxage=3600, stale-while-revalidate=600")
}

func (hs *Homeserver) getCapabilities(*call) (any, error) {
	capabilities := map[string]any{
		"m.room_versions":   map[string]any{"default": defaultVersion, "available": roomVersions},
		"m.change_password": map[string]bool{"enabled": hs.opts.Personality != SynapseOAuth},
	}
	if hs.traits.family == synapse {
		capabilities["m.3pid_changes"] = map[string]bool{"enabled": hs.opts.Personality != SynapseOAuth}
		capabilities["m.get_login_token"] = map[string]bool{"enabled": false}
		capabilities["org.matrix.msc4140.delayed_events"] = map[string]int{"max_delay_ms": 0, "max_scheduled": 100}
	}
	if hs.traits.family != dendrite {
		capabilities["m.set_displayname"] = map[string]bool{"enabled": true}
		capabilities["m.set_avatar_url"] = map[string]bool{"enabled": true}
	}
	if hs.traits.profileFields {
		capabilities["m.profile_fields"] = map[string]bool{"enabled": true}
	}
	return map[string]any{"capabilities": capabilities}, nil
}

// getAuthMetadata would ask the authentication service, which does not answer here.
func (hs *Homeserver) getAuthMetadata(c *call) (any, error) {
	if hs.opts.Personality != SynapseOAuth {
		return nil, unrecognized()
	}
	cacheable(c)
	return nil, errors.New("no authentication service")
}
