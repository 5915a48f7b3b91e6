package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKeeper_BodiesAreWrittenOneAfterTheOtherAndCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bodies")
	k, err := newKeeper(path, "t")
	if err != nil {
		t.Fatal(err)
	}
	defer k.file.Close()
	do := func(method, target, body, token string) (int, string) {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		k.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	for _, body := range []string{"one", "the second", "3"} {
		if code, answer := do(http.MethodPut, "/x", body, "t"); code != http.StatusOK || answer != "{}" {
			t.Errorf("%d %s", code, answer)
		}
	}
	if code, _ := do(http.MethodPut, "/x", "no", "wrong"); code != http.StatusForbidden {
		t.Errorf("a wrong token: %d", code)
	}
	k.at = fileSize - 2
	if code, _ := do(http.MethodPut, "/x", "ONE", "t"); code != http.StatusOK {
		t.Errorf("round the end: %d", code)
	}
	if _, answer := do(http.MethodGet, "/count", "", ""); answer != `{"transactions":4}` {
		t.Error(answer)
	}
	content, err := os.ReadFile(path)
	if err != nil || len(content) != fileSize || !bytes.HasPrefix(content, []byte("ONEthe second3\x00")) {
		t.Errorf("%d bytes, %v: %q", len(content), err, content[:20])
	}
}
