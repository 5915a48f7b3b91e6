package format

import "strconv"

// Size writes a number of bytes for people, in powers of 1000: "1.2 MB".
func Size(bytes int64) string {
	if bytes < 1000 {
		return strconv.FormatInt(bytes, 10) + " B"
	}
	value, unit := float64(bytes)/1000, 0
	const units = "kMGTPE"
	for value >= 999.95 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	precision := 1
	if value >= 99.95 {
		precision = 0
	}
	return strconv.FormatFloat(value, 'f', precision, 64) + " " + units[unit:unit+1] + "B"
}
