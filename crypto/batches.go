//go:build goolm

package crypto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"maunium.net/go/mautrix/id"
)

// maxBatch is how many devices are sent a message in one request. mautrix sends a room key to all in one: with sender_device_keys (MSC4147) a message
// has some 2.5 KB, a homeserver takes 13 MB, and a proxy before it often only 1 MB.
const maxBatch = 250

// sendInBatches makes several requests of one that sends messages to many devices. When one fails nothing is said of the others: who sends them again sends
// all of them.
func sendInBatches(base http.RoundTripper, r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut || r.Body == nil || !strings.Contains(r.URL.Path, "/sendToDevice/") {
		return base.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		return nil, err
	}
	batches, err := batchesOf(body)
	if err != nil {
		return nil, err
	}
	for n, batch := range batches {
		part := r.Clone(r.Context())
		part.Body, part.ContentLength = io.NopCloser(bytes.NewReader(batch)), int64(len(batch))
		part.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(batch)), nil }
		if n > 0 { // each its own transaction ID, which ends the path
			more := fmt.Sprintf(".%d", n)
			part.URL.Path += more
			if part.URL.RawPath != "" {
				part.URL.RawPath += more
			}
		}
		resp, err := base.RoundTrip(part)
		if err != nil || n == len(batches)-1 || resp.StatusCode >= http.StatusMultipleChoices {
			return resp, err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	return nil, nil // there is at least one batch
}

// batchesOf splits the body of a request, and leaves messages out that are empty ([writable]).
func batchesOf(body []byte) ([][]byte, error) {
	type messages map[id.UserID]map[id.DeviceID]json.RawMessage
	var all struct {
		Messages messages `json:"messages"`
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("a request of to-device messages: %w", err)
	}
	var batches [][]byte
	batch, many := messages{}, 0
	end := func() error {
		raw, err := json.Marshal(map[string]messages{"messages": batch})
		batches, batch, many = append(batches, raw), messages{}, 0
		return err
	}
	for user, devices := range all.Messages {
		for device, content := range devices {
			if bytes.Contains(content, emptyOlm) {
				continue
			}
			if many == maxBatch {
				if err := end(); err != nil {
					return nil, err
				}
			}
			if batch[user] == nil {
				batch[user] = map[id.DeviceID]json.RawMessage{}
			}
			batch[user][device] = content
			many++
		}
	}
	err := end()
	return batches, err
}
