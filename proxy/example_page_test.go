package proxy_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

// A text that is too long for the network becomes a page. When its sender edits the message, the page shows the new text under the old link.
func ExampleSigner_Page() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "proxy-example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	st, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "bridge.db"), store.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	signer, err := proxy.NewSigner(ctx, proxy.SignerConfig{PublicURL: "https://bridge.example", Store: st})
	if err != nil {
		log.Fatal(err)
	}
	server, err := proxy.NewServer(proxy.ServerConfig{
		HomeserverURL: "http://localhost:8008", Token: "the-as-token", PublicURL: "https://bridge.example", Store: st, Keys: signer.Keys(),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	page := proxy.Page{
		Author: "Alice", Text: "The first line\nand many more", Room: "!garden:example.org", Event: "$story", Sender: "@alice:example.org", Written: time.Now(),
	}
	link, err := signer.Page(ctx, page)
	if err != nil {
		log.Fatal(err)
	}
	show := func(accept string) string {
		r := httptest.NewRequest(http.MethodGet, strings.TrimPrefix(link, "https://bridge.example"), nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		return w.Body.String()
	}
	first, _, _ := strings.Cut(show("text/html"), "\n")
	fmt.Println(first)
	fmt.Print(show("*/*"))

	page.Text, page.Edit, page.Written = "A better story", "$edit", time.Now()
	err = st.Commit(ctx, st.Epoch(), func(tx *store.Tx) error {
		_, err := proxy.EditPage(tx.MediaTx, page)
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(show("*/*"))
	// Output:
	// <!DOCTYPE html>
	// The first line
	// and many more
	// A better story
}
