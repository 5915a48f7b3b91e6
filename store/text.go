package store

import (
	"encoding/base64"
	"strings"
	"time"
	"unicode/utf8"
)

// PostgreSQL takes neither NUL nor invalid UTF-8 in a TEXT column, and remote networks send both. Such strings are
// stored encoded behind a mark that no sound string begins with, on every engine, so that what is written is what is read.
const encodedMark = "\x01"

func toColumn(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 && !strings.HasPrefix(s, encodedMark) {
		return s
	}
	return encodedMark + base64.StdEncoding.EncodeToString([]byte(s))
}

func fromColumn(s string) string {
	if !strings.HasPrefix(s, encodedMark) {
		return s
	}
	raw, err := base64.StdEncoding.DecodeString(s[len(encodedMark):])
	if err != nil {
		return s
	}
	return string(raw)
}

// text scans a TEXT column written by toColumn.
type text struct{ to *string }

func (t text) Scan(value any) error {
	switch v := value.(type) {
	case string:
		*t.to = fromColumn(v)
	case []byte:
		*t.to = fromColumn(string(v))
	default:
		*t.to = ""
	}
	return nil
}

// Times are kept as milliseconds in BIGINT columns: the two SQLite drivers do not read each other's time columns.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// moment scans a column of milliseconds.
type moment struct{ to *time.Time }

func (m moment) Scan(value any) error {
	ms, _ := value.(int64)
	*m.to = fromMillis(ms)
	return nil
}

// flag scans a column that holds 0 or 1.
type flag struct{ to *bool }

func (f flag) Scan(value any) error {
	n, _ := value.(int64)
	*f.to = n != 0
	return nil
}

func toFlag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// blob scans a column of bytes. An empty value is empty and not nil, whatever the driver makes of it.
type blob struct{ to *[]byte }

func (b blob) Scan(value any) error {
	raw, _ := value.([]byte)
	*b.to = append([]byte{}, raw...)
	return nil
}

// toBlob keeps NULL out of columns that must not have it.
func toBlob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// maxCause bounds what an error's text takes in the store.
const maxCause = 4 << 10

func toCause(s string) string {
	if len(s) > maxCause {
		s = strings.ToValidUTF8(s[:maxCause], "")
	}
	return toColumn(s)
}
