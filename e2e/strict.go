//go:build goolm

package e2e

import (
	"crypto/rand"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/internal/olmclient"
)

// Strict registers a user whose client has keys, and gives and takes nothing that is not cross-signed.
func (s *Synapse) Strict(name string) *olmclient.Client {
	s.tb.Helper()
	password := rand.Text()
	s.register(name, password, false)
	return olmclient.Start(s.tb, olmclient.Options{URL: s.URL, User: id.NewUserID(name, s.Domain), Password: password})
}
