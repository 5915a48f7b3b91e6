package store

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
)

func TestMarks_OfManyUsers_AreBoundedAndForgetNobodyWhoWasMarked(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "store.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Commit(ctx, s.Epoch(), func(tx *Tx) error {
		before := s.DeviceMarks()
		for i := range maxMarks + 10 {
			s.marks.mark(fmt.Sprint("@user", i, ":x"))
		}
		if n := len(s.marks.names); n > maxMarks {
			t.Errorf("%d users are known by name", n)
		}
		after := s.DeviceMarks()
		for _, user := range []string{"@user0:x", "@user5000:x", fmt.Sprint("@user", maxMarks+9, ":x")} {
			if !s.marks.since(user, before) || s.marks.since(user, after) {
				t.Errorf("%s: since before %t, since after %t", user, s.marks.since(user, before), s.marks.since(user, after))
			}
			if err := tx.KeepDevicesOutdated(user, before); err != nil {
				return err
			}
			if s.marks.since(user, after) {
				t.Errorf("that %s stays marked is a mark of its own", user)
			}
		}
		s.marks.markAll()
		if !s.marks.since("@nobody:x", after) {
			t.Error("a mark of all leaves somebody out")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
