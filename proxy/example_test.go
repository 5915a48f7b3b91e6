package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/proxy"
	"github.com/trestle-bridge/trestle/store"
)

// A bridge signs a link for a photo in a Matrix room, someone on the network opens it, and it ends when the message is deleted.
func Example() {
	if err := example(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// a token of 34 characters, and flower.jpg
	// 200 image/jpeg inline; filename="flower.jpg"
	// 410 This link has ended, or its message was deleted.
}

func example(ctx context.Context) error {
	// A homeserver that gives out media for a token only.
	homeserver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the-as-token" {
			http.Error(w, `{"errcode":"M_MISSING_TOKEN"}`, http.StatusUnauthorized)
			return
		}
		io.WriteString(w, "\xff\xd8\xff\xe0 a flower")
	}))
	defer homeserver.Close()

	dir, err := os.MkdirTemp("", "proxy-example")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	st, err := store.Open(ctx, "sqlite:"+filepath.Join(dir, "bridge.db"), store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()

	// The server has a listener of its own.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	signer, err := proxy.NewSigner(ctx, proxy.SignerConfig{PublicURL: "http://" + listener.Addr().String(), Store: st})
	if err != nil {
		return err
	}
	server, err := proxy.NewServer(proxy.ServerConfig{
		HomeserverURL: homeserver.URL, Token: "the-as-token", Store: st, Keys: signer.Keys(),
	})
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(serving, listener) }()

	link, err := signer.Short(ctx, proxy.Media{
		URI:  id.ContentURI{Homeserver: "example.org", FileID: "AbCdEf"},
		Name: "flower.jpg", MIME: "image/jpeg", Room: "!garden:example.org", Event: "$flower",
	})
	if err != nil {
		return err
	}
	parts := strings.Split(link, "/")
	fmt.Printf("a token of %d characters, and %s\n", len(parts[4]), parts[5])

	resp, err := http.Get(link)
	if err != nil {
		return err
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Get("Content-Disposition"))

	// The message is redacted: its links end in that commit.
	err = st.Commit(ctx, st.Epoch(), func(tx *store.Tx) error {
		_, err := tx.RevokeMedia("!garden:example.org", "$flower")
		return err
	})
	if err != nil {
		return err
	}
	if resp, err = http.Get(link); err != nil {
		return err
	}
	told, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return err
	}
	fmt.Println(resp.StatusCode, strings.TrimSpace(string(told)))

	http.DefaultClient.CloseIdleConnections()
	stop()
	return <-stopped
}

// Keys rotate while links live: the old key verifies until it is retired.
func ExampleKeyRing_Rotate() {
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
	keys, err := proxy.OpenKeyRing(ctx, st, nil)
	if err != nil {
		log.Fatal(err)
	}
	_, old := keys.IDs()
	if _, err := keys.Rotate(ctx); err != nil {
		log.Fatal(err)
	}
	verify, signing := keys.IDs()
	fmt.Println("rotated:", verify, "verify,", signing, "signs until the new one is 30 seconds old")
	if err := keys.Retire(ctx, old); err != nil {
		log.Fatal(err)
	}
	verify, signing = keys.IDs()
	fmt.Println("retired:", verify, "verifies,", signing, "signs")
	// Output:
	// rotated: [1 2] verify, 1 signs until the new one is 30 seconds old
	// retired: [2] verifies, 2 signs
}

// A bridge without a store gives its keys, and makes links that carry everything with them.
func ExampleSigner_SelfContained() {
	keys, err := proxy.StaticKeys(store.MediaKey{ID: 1, Secret: []byte("32 bytes from a random generator")})
	if err != nil {
		log.Fatal(err)
	}
	signer, err := proxy.NewSigner(context.Background(), proxy.SignerConfig{
		PublicURL: "https://bridge.example", Keys: keys, Lifetime: -1, Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
	})
	if err != nil {
		log.Fatal(err)
	}
	link, err := signer.SelfContained(proxy.Media{
		URI: id.ContentURI{Homeserver: "example.org", FileID: "AbCdEf"}, Name: "flower.jpg", MIME: "image/jpeg", Event: "$flower",
	})
	if err != nil {
		log.Fatal(err)
	}
	before, _, _ := strings.Cut(link, "mac=")
	fmt.Println(before + "mac=…")
	// Output:
	// https://bridge.example/media/example.org/AbCdEf/flower.jpg?c=1800000000000&d=inline&e=%24flower&k=1&n=flower.jpg&t=image%2Fjpeg&mac=…
}
