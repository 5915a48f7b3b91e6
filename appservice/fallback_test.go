package appservice

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// oldMedia has media at its old place alone, and answers for the new one as told.
func oldMedia(t *testing.T, status int, code string) (*fixture, *fakeHS) {
	hs := newFakeHS(t)
	hs.override = func(w http.ResponseWriter, r *http.Request, _ string) bool {
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, "/_matrix/client/v1/media/"):
			answerError(w, status, code, "no")
		case strings.HasPrefix(path, "/_matrix/media/v3/download/"):
			_, _ = w.Write([]byte("old"))
		case path == "/_matrix/media/v3/config":
			_, _ = w.Write([]byte(`{"m.upload.size":3}`))
		default:
			return false
		}
		return true
	}
	return newFixture(t, hs), hs
}

func TestD5_EndpointThatIsNotThere_TheOlderOneIsTakenAndThatIsRemembered(t *testing.T) {
	for _, status := range []int{404, 400, 405} {
		f, hs := oldMedia(t, status, codeUnrecognized)
		for range 3 {
			resp, err := f.as.Bot().Download(t.Context(), id.ContentURI{Homeserver: "hs.test", FileID: "x"})
			if err != nil {
				t.Fatal(status, err)
			}
			data, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if string(data) != "old" {
				t.Errorf("%q", data)
			}
		}
		if _, err := f.as.Bot().Upload(t.Context(), strings.NewReader("four"), 4, "a/b", "x"); !errors.Is(err, ErrTooLarge) {
			t.Errorf("the limit at the old place does not hold: %v", err)
		}
		if n := hs.count("GET /_matrix/client/v1/media/download/"); n != 1 {
			t.Errorf("%d: the homeserver was asked %d times for what it does not have", status, n)
		}
	}
}

func TestD5_AnythingElseThatIsNotFound_IsNoReasonToAskElsewhere(t *testing.T) {
	for status, code := range map[int]string{404: "M_NOT_FOUND", 400: "M_UNKNOWN", 405: "M_FORBIDDEN", 403: codeUnrecognized, 500: codeUnrecognized} {
		f, hs := oldMedia(t, status, code)
		for range 2 {
			if _, err := f.as.Bot().Download(t.Context(), id.ContentURI{Homeserver: "hs.test", FileID: "x"}); errorCode(err) != code {
				t.Errorf("%d %s: %v", status, code, err)
			}
		}
		if n := hs.count("GET /_matrix/media/v3/download/"); n != 0 {
			t.Errorf("%d %s: %d requests to the old endpoint", status, code, n)
		}
	}
}

func TestD5_EndpointThatWasNotThere_IsAskedForAgainAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e fallbacks
		asked, fell := 0, 0
		ask := func() {
			err := e.withFallback("x", func() error {
				asked++
				return mautrix.HTTPError{Response: &http.Response{StatusCode: 404}, RespError: &mautrix.RespError{ErrCode: codeUnrecognized}}
			}, func() error { fell++; return nil })
			if err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			ask()
		}
		time.Sleep(lacksFor)
		ask()
		if asked != 2 || fell != 4 {
			t.Errorf("asked %d times, and fell back %d times", asked, fell)
		}
	})
}
