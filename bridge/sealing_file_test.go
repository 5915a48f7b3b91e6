//go:build goolm

package bridge_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/bridge"
	"github.com/trestle-bridge/trestle/bridgetest"
	"github.com/trestle-bridge/trestle/internal/olmclient"
	"github.com/trestle-bridge/trestle/store"
)

var photo = bytes.Repeat([]byte("photo"), 1000)

func (s *sealed) sendsPhoto(channel, user string) {
	s.Helper()
	s.ok(s.net.Deliver(s.ctx, &bridge.Incoming{
		Channel: channel, ID: "photo", Sender: bridge.RemoteUser{ID: user},
		File: &bridge.File{Name: "cat.jpg", MIME: "image/jpeg", Size: int64(len(photo)), Content: bytes.NewReader(photo)},
	}))
}

func (s *sealed) uploads() int {
	return len(s.hs.Requests(func(r bridgetest.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.Path, "/upload") && strings.Contains(r.Path, "/media/")
	}))
}

// hasPhoto opens the file of a message.
func (s *sealed) hasPhoto(ev *olmclient.Event) {
	s.Helper()
	content := &event.Content{VeryRaw: must(json.Marshal(ev.Content))(s.T)}
	s.ok(content.ParseRaw(event.EventMessage))
	file := content.AsMessage().File
	if !ev.Encrypted || file == nil || ev.Content["url"] != nil {
		s.Fatalf("encrypted: %t, and it points at a plain file: %v", ev.Encrypted, ev.Content)
	}
	data, mime, err := s.alice.Download(s.ctx, must(file.URL.Parse())(s.T))
	s.ok(err)
	if err := file.DecryptInPlace(data); err != nil || !bytes.Equal(data, photo) || mime != "application/octet-stream" {
		s.Errorf("%d bytes of %s do not open: %v", len(data), mime, err)
	}
	if ev.Content["filename"] != "cat.jpg" || content.AsMessage().Info.MimeType != "image/jpeg" {
		s.Errorf("the rest of it is %v", ev.Content)
	}
}

// switchedWhilePhotoIsUnderWay has encryption switched on after a file was uploaded, and before its event leaves.
func (s *sealed) switchedWhilePhotoIsUnderWay(meanwhile func()) id.RoomID {
	s.Helper()
	return s.switchedUnderWay(func() { s.sendsPhoto("den", "carl") }, meanwhile)
}

func TestEncryption_FileUploadedBeforeTheSwitch_IsUploadedAgainEncryptedOnce(t *testing.T) {
	s := newSealed(t, "ghosts")
	room := s.switchedWhilePhotoIsUnderWay(func() { // the room key cannot be given at first
		s.hs.Fault(bridgetest.Fault{Path: regexp.MustCompile(`/keys/claim`), Times: 2, Status: http.StatusInternalServerError})
	})
	s.hasPhoto(s.keys.WaitFor("the file", olmclient.Text(room, "cat.jpg")))
	if n := s.uploads(); n != 2 {
		t.Errorf("%d uploads, want the plain one and one encrypted", n)
	}
	for _, ev := range s.keys.InTheClear(room) {
		t.Errorf("in the clear: %v", ev.Content)
	}
}

func TestEncryption_FileUploadedBeforeTheSwitchAndGone_IsADeadLetter(t *testing.T) {
	s := newSealed(t, "ghosts")
	room := s.switchedWhilePhotoIsUnderWay(func() {
		s.hs.Fault(bridgetest.Fault{Path: regexp.MustCompile(`/media/.*download/|/download/`), Times: -1, Status: http.StatusNotFound, ErrCode: "M_NOT_FOUND"})
	})
	letters := must(s.b.DeadLetters(s.ctx, 1))(t)
	if !strings.Contains(letters[0].Cause, "the homeserver has it no more") {
		t.Errorf("dead letter %+v", letters[0])
	}
	s.ok(s.net.Say(s.ctx, "den", "carl", "end"))
	s.keys.WaitFor("end", olmclient.Text(room, "end"))
	if seen := s.keys.Seen(olmclient.Text(room, "cat.jpg")); len(seen) != 0 {
		t.Errorf("the room has %v", seen[0].Content)
	}
}

// restarts has the bridge go on in another mode, with its dead letters taken up again.
func (s *sealed) restarts(mode string, letters []store.DeadLetter) {
	s.Helper()
	s.b.Stop()
	s.b.Config.Encryption.Mode = mode
	db := must(store.Open(s.ctx, s.b.Config.Database, store.Options{}))(s.T)
	for _, letter := range letters {
		s.ok(db.Commit(s.ctx, db.Epoch(), func(tx *store.Tx) error {
			_, err := tx.ReplayOutgoing(letter.ID)
			return err
		}))
	}
	s.ok(db.Close())
	s.b.Start()
}

func TestEncryption_FileInModeOff_GoesNowhere_AndIsNotReplayedWithoutItsBytes(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.restarts("off", nil)
	s.sendsPhoto(lobby, "bob")
	letters := must(s.b.DeadLetters(s.ctx, 1))(t)
	if !strings.Contains(letters[0].Cause, "the Matrix room is encrypted") {
		t.Errorf("dead letter %+v", letters[0])
	}
	if n := s.uploads(); n != 0 {
		t.Errorf("the file of an encrypted room was uploaded %d times", n)
	}
	s.restarts("ghosts", letters)
	letters = must(s.b.DeadLetters(s.ctx, 1))(t)
	if !strings.Contains(letters[0].Cause, "its file was not kept") {
		t.Errorf("dead letter %+v", letters[0])
	}
}

func TestEncryption_FileUploadedBeforeTheSwitchAndReplayedInAnotherMode_IsEncrypted(t *testing.T) {
	s := newSealed(t, "ghosts")
	s.b.Stop()
	s.b.Config.Bridge.Plumb = nil
	s.b.Config.Encryption.Mode = "off"
	s.b.Start()
	room := s.switchedWhilePhotoIsUnderWay(func() {})
	letters := must(s.b.DeadLetters(s.ctx, 1))(t)
	s.restarts("ghosts", letters)
	s.hasPhoto(s.keys.WaitFor("the file", olmclient.Text(room, "cat.jpg")))
}
