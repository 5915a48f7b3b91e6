package appservice

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// A homeserver that does not say how large files may be holds up who asks, and nobody who no longer wants to upload.
func TestUpload_WhileAnotherAsksForTheLimit_EndsWithItsContext(t *testing.T) {
	asked, free := make(chan struct{}, 2), make(chan struct{})
	hs := newFakeHS(t)
	f := newFixture(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/media/config") {
			asked <- struct{}{}
			<-free
		}
		hs.ServeHTTP(w, r)
	}))
	ghost := f.as.Ghost(ghostA)
	if err := ghost.EnsureRegistered(t.Context()); err != nil {
		t.Fatal(err)
	}
	upload := func(ctx context.Context) <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := ghost.Upload(ctx, strings.NewReader("x"), 1, "text/plain", "x")
			ended <- err
		}()
		return ended
	}
	first := upload(t.Context())
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := <-upload(ctx); err == nil {
		t.Error("uploaded with a context that has ended")
	}
	close(free)
	<-first
}
