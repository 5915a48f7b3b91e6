package bridge

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var errUnit = errors.New("a number and a unit are needed")

var days = regexp.MustCompile(`^([0-9]{1,6})d`)

// parseDuration reads what time.ParseDuration reads, with days in front: "30d", "1d12h". A day has 24 hours.
func parseDuration(text string) (time.Duration, error) {
	var whole time.Duration
	if found := days.FindStringSubmatch(text); found != nil {
		n, err := strconv.ParseInt(found[1], 10, 64)
		if err != nil || n > int64(math.MaxInt64/(24*time.Hour)) {
			return 0, errUnit
		}
		whole, text = time.Duration(n)*24*time.Hour, text[len(found[0]):]
		if text == "" {
			return whole, nil
		}
		if strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
			return 0, errUnit
		}
	}
	rest, err := time.ParseDuration(text)
	if err != nil || rest > math.MaxInt64-whole {
		return 0, errUnit
	}
	return whole + rest, nil
}

// formatDuration is the reverse, in the fewest characters: "30d", "1d12h", "20s".
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d < day {
		return shortDuration(d)
	}
	text := strconv.FormatInt(int64(d/day), 10) + "d"
	if rest := d % day; rest != 0 {
		text += shortDuration(rest)
	}
	return text
}

func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var sizeUnits = []struct {
	name  string
	bytes Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// parseSize reads a whole number of B, KiB, MiB or GiB.
func parseSize(text string) (Size, error) {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil || n > uint64(math.MaxInt64/unit.bytes) {
			return 0, errUnit
		}
		return Size(n) * unit.bytes, nil
	}
	if text == "0" {
		return 0, nil
	}
	return 0, errUnit
}

// String writes the size as the configuration has it.
func (s Size) String() string {
	for _, unit := range sizeUnits {
		if s >= unit.bytes && s%unit.bytes == 0 {
			return strconv.FormatInt(int64(s/unit.bytes), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText writes the size as the configuration has it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
