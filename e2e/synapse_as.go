package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"

	"maunium.net/go/mautrix/id"
)

// GetAs makes a GET request with an appservice's token in the name of one of its users, and decodes the answer.
func (s *Synapse) GetAs(token string, user id.UserID, path string, answer any) {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, s.URL+path+"?user_id="+url.QueryEscape(user.String()), nil)
	if err != nil {
		s.tb.Fatalf("asking for %s as %s: %v", path, user, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := httpClient.Do(req)
	if err != nil {
		s.tb.Fatalf("asking for %s as %s: %v", path, user, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.tb.Fatalf("asking for %s as %s: HTTP status %s", path, user, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		s.tb.Fatalf("asking for %s as %s: %v", path, user, err)
	}
}
