package e2e

import (
	"bytes"
	"image"
	"image/png"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

const photoSide = 300

// testPhoto makes a picture that does not compress, so that it comes in many pieces.
func testPhoto(t *testing.T) []byte {
	t.Helper()
	picture := image.NewNRGBA(image.Rect(0, 0, photoSide, photoSide))
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range picture.Pix {
		picture.Pix[i] = byte(noise.Uint32())
	}
	var data bytes.Buffer
	if err := png.Encode(&data, picture); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// trap is a web server that nobody should ever ask.
type trap struct {
	URL  string
	hits atomic.Int64
}

func startTrap(t *testing.T) *trap {
	tr := &trap{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		tr.hits.Add(1)
		w.Header().Set("Content-Type", "image/png")
	}))
	t.Cleanup(server.Close)
	tr.URL = server.URL
	return tr
}

func (tr *trap) Hits() int64 { return tr.hits.Load() }
