package bridge

import (
	"testing"
	"time"
)

func TestConfigUnits_Durations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "20s": 20 * time.Second, "1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "30d": 720 * time.Hour, "1h30m": 90 * time.Minute, "-5s": -5 * time.Second,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "1", "1d-1h", "1d+1h", "1d1d", "1h1d", "106752d", "999999d", "106751d24h", "1.5d", "-1d", "1w", " 1d"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestConfigUnits_FormattedDurations_AreReadBack(t *testing.T) {
	for text, d := range map[string]time.Duration{"20s": 20 * time.Second, "1m": time.Minute, "1h": time.Hour, "1h0m5s": time.Hour + 5*time.Second,
		"1d": 24 * time.Hour, "1d12h": 36 * time.Hour, "10m": 10 * time.Minute, "20h": 20 * time.Hour} {
		if got := formatDuration(d); got != text {
			t.Errorf("%v: got %s, want %s", d, got, text)
		}
		if back, err := parseDuration(formatDuration(d)); err != nil || back != d {
			t.Errorf("%v: read back as %v, %v", d, back, err)
		}
	}
}

func TestConfigUnits_Sizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "5B": 5, "512KiB": 512 << 10, "100MiB": 100 << 20, "2GiB": 2 << 30, "2 GiB": 2 << 30} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "MiB", "-1B", "1.5MiB", "1MB", "1kib", "8589934592GiB", "99999999999999999999B"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
	if got := Size(1536).String(); got != "1536B" {
		t.Errorf("got %s", got)
	}
}
