package bridgetest

// getServerVersion tells everybody what the homeserver is (federation API, "GET /_matrix/federation/v1/version").
func (hs *Homeserver) getServerVersion(*call) (any, error) {
	return map[string]any{"server": map[string]string{"name": hs.traits.program, "version": hs.traits.version}}, nil
}
