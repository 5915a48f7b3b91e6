package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
)

// brief prints a time that is given in milliseconds: 52 us, 1 ms, 1.09 ms.
func brief(ms float64) string {
	if ms < 1 {
		return number("%.0f us", ms*1000)
	}
	return strconv.FormatFloat(math.Round(ms*100)/100, 'f', -1, 64) + " ms"
}

// where names a disk, by what one event's fdatasync takes on it.
func (s *series) where(d disk) string {
	if s.longer == 0 {
		return fmt.Sprintf("on this disk (%s)", brief(d.p50))
	}
	return fmt.Sprintf("with syncs of %s", brief(d.p50))
}

// goalShare is what a sink must reach of fdatasync.
func (t *target) goalShare() float64 {
	if t.server != nil {
		return goalPostgres
	}
	return goalSQLite
}

// onSlower is the report of the slower disk.
func (b *bench) onSlower(w io.Writer, here disk) {
	if b.slower == nil {
		return
	}
	d := b.slower.disk()
	table(w, fmt.Sprintf("On a disk whose sync takes %s longer: transactions of %d events, and of 1, acknowledged", brief(milliseconds(b.slower.longer)), bigSize),
		"\tevents/s\tof fdatasync\tof a file over HTTP\thandled/s\t1 event p50 ms\tp99 ms\tp50 x fdatasync\tp99 x fdatasync\t", func(row func(...string)) {
			row("fdatasync", number("%.0f", d.rate), "1.00", number("%.2f", d.rate/d.file), "-", number("%.3f", d.p50), number("%.3f", d.p99), "1.0", "1.0")
			for _, t := range b.slower.targets {
				ms := b.slower.measured[t.name]
				rate := median(ms, bigRate)
				row(t.title, number("%.0f", rate), number("%.2f", rate/d.rate), number("%.2f", rate/d.file), number("%.0f", median(kept(t, ms), handledRate)),
					number("%.3f", median(ms, p50)), number("%.3f", median(ms, p99)), number("%.1f", median(ms, p50)/d.p50), number("%.1f", median(ms, p99)/d.p99))
			}
		})
	table(w, fmt.Sprintf("AN ESTIMATE, drawn through these two disks: a transaction of %d events takes a time of its own and so many syncs of its bytes", bigSize),
		"\tits own ms\tsyncs\tgoal, of fdatasync\treached from a sync of\tto be tried with\t", func(row func(...string)) {
			for _, t := range b.slower.targets {
				l := through(point{here.transaction(), transaction(median(b.here.measured[t.name], bigRate))},
					point{d.transaction(), transaction(median(b.slower.measured[t.name], bigRate))})
				goal, from, try := "-", "-", "-"
				if t.sink {
					goal = fmt.Sprintf("%.2f", t.goalShare())
					ms := l.reaches(t.goalShare())
					switch longer := ms - here.transaction(); {
					case math.IsNaN(ms):
						from = "too unsteady to tell"
					case math.IsInf(ms, 1):
						from = "too many syncs"
					case longer <= 0:
						from = "this disk"
					default:
						from, try = fmt.Sprintf("%.2f ms", ms), fmt.Sprintf("-sync %.2fms", longer)
					}
				}
				row(t.title, number("%.2f", l.own), number("%.2f", l.syncs), goal, from, try)
			}
		})
}

// transaction is what a large transaction takes, in ms, at so many events a second.
func transaction(rate float64) float64 { return bigSize / rate * 1000 }

// transaction is what the disk takes for the bytes of a large one, in ms.
func (d disk) transaction() float64 { return transaction(d.rate) }

// point is a disk and what a target makes of it. Both are ms for a large transaction.
type point struct{ sync, target float64 }

// line is the time that a target takes for a transaction, by that of a sync: own + syncs x sync, in ms.
type line struct{ own, syncs float64 }

func through(a, b point) line {
	syncs := (b.target - a.target) / (b.sync - a.sync)
	return line{a.target - syncs*a.sync, syncs}
}

// reaches gives the sync in ms from which on the target has this share of what the disk allows: infinite when it waits for
// too many syncs, and NaN when the points are none of a target that waits for any, which is what a busy machine makes of them.
func (l line) reaches(share float64) float64 {
	switch {
	case !(l.own > 0 && l.syncs > 0):
		return math.NaN()
	case share*l.syncs >= 1:
		return math.Inf(1)
	}
	return share * l.own / (1 - share*l.syncs)
}
