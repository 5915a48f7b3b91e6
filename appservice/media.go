package appservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// ErrTooLarge says that a file is over the homeserver's upload limit. It is told before a byte is sent: Synapse cuts the
// connection instead of answering.
var ErrTooLarge = errors.New("the file is over the homeserver's upload limit")

// uploadLimit is the homeserver's limit, asked for once an hour.
type uploadLimit struct {
	mu    sync.Mutex
	bytes int64 // 0: none that is known
	until time.Time
}

const (
	uploadLimitFor   = time.Hour
	uploadLimitAgain = time.Minute // after it could not be had
	uploadLimitLock  = "upload limit"
)

func (u *uploadLimit) get() (bytes int64, fresh bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bytes, time.Now().Before(u.until)
}

func (u *uploadLimit) set(bytes int64, hold time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.bytes, u.until = bytes, time.Now().Add(hold)
}

// uploadLimit is 0 when it is not known: then the upload shows it.
func (i *Intent) uploadLimit(ctx context.Context) int64 {
	u := &i.as.uploads
	if bytes, fresh := u.get(); fresh {
		return bytes
	}
	unlock, err := i.as.locks.Lock(ctx, uploadLimitLock)
	if err != nil {
		return 0
	}
	defer unlock()
	if bytes, fresh := u.get(); fresh {
		return bytes
	}
	var resp mautrix.RespMediaConfig
	cli := i.client("")
	get := func(url string) func() error {
		return func() error {
			_, err := cli.MakeRequest(ctx, http.MethodGet, url, nil, &resp)
			return err
		}
	}
	err = i.as.fallbacks.withFallback("media/config", get(cli.BuildClientURL("v1", "media", "config")), get(cli.BuildURL(mautrix.MediaURLPath{"v3", "config"})))
	switch {
	case err == nil:
		u.set(resp.UploadSize, uploadLimitFor)
	case ctx.Err() == nil: // else it says nothing of the homeserver
		u.set(0, uploadLimitAgain)
	}
	return resp.UploadSize
}

// Upload streams a file to the homeserver. size is in bytes, or -1 when it is not known. It is never repeated: r was
// read.
func (i *Intent) Upload(ctx context.Context, r io.Reader, size int64, mime, name string) (id.ContentURI, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return id.ContentURI{}, err
	}
	if limit := i.uploadLimit(ctx); limit > 0 && size > limit {
		return id.ContentURI{}, Permanent(fmt.Errorf("upload %d bytes as %s: %w of %d bytes", size, i.user, ErrTooLarge, limit))
	}
	resp, err := i.client("").UploadMedia(ctx, mautrix.ReqUploadMedia{Content: r, ContentLength: size, ContentType: mime, FileName: name})
	if err != nil {
		return id.ContentURI{}, fmt.Errorf("upload as %s: %w", i.user, i.as.explain(err))
	}
	return resp.ContentURI, nil
}

// Download opens a file, through the authenticated endpoint (MSC3916), or where the homeserver has none through the old one.
// The caller closes the body.
func (i *Intent) Download(ctx context.Context, uri id.ContentURI) (*http.Response, error) {
	if err := i.EnsureRegistered(ctx); err != nil {
		return nil, err
	}
	var resp *http.Response
	cli := i.client("")
	get := func(url string) func() error {
		return func() (err error) {
			_, resp, err = cli.MakeFullRequestWithResp(ctx, mautrix.FullRequest{Method: http.MethodGet, URL: url, DontReadResponse: true})
			return err
		}
	}
	err := i.as.fallbacks.withFallback("media/download", get(cli.BuildClientURL("v1", "media", "download", uri.Homeserver, uri.FileID)),
		get(cli.BuildURL(mautrix.MediaURLPath{"v3", "download", uri.Homeserver, uri.FileID})))
	if err != nil {
		return nil, fmt.Errorf("download %s: %w", uri, i.as.explain(err))
	}
	return resp, nil
}
