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
	if s.design {
		return fmt.Sprintf("on the design's disk (%s)", brief(d.p50))
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
	what := fmt.Sprintf("On a disk whose sync takes %s longer", brief(milliseconds(b.slower.longer)))
	if b.slower.design {
		what = fmt.Sprintf("On the design's disk (fdatasync: %.0f events/s in hundreds, with every sync %s longer)", designRate, brief(milliseconds(b.slower.longer)))
	}
	table(w, fmt.Sprintf("%s: transactions of %d events, and of 1, acknowledged", what, bigSize),
		"\tevents/s\tof fdatasync\tof a file over HTTP\thandled/s\t1 event p50 ms\tp99 ms\tp50 x fdatasync\tp99 x fdatasync\t", func(row func(...string)) {
			row("fdatasync", number("%.0f", d.rate), "1.00", number("%.2f", d.rate/d.file), "-", number("%.3f", d.p50), number("%.3f", d.p99), "1.0", "1.0")
			for _, t := range b.slower.targets {
				ms := b.slower.measured[t.name]
				rate := median(ms, bigRate)
				row(t.title, number("%.0f", rate), number("%.2f", rate/d.rate), number("%.2f", rate/d.file), number("%.0f", median(kept(t, ms), handledRate)),
					number("%.3f", median(ms, p50)), number("%.3f", median(ms, p99)), number("%.1f", median(ms, p50)/d.p50), number("%.1f", median(ms, p99)/d.p99))
			}
		})
	table(w, fmt.Sprintf("AN ESTIMATE from each of the two disks: a transaction of %d events takes one sync of its bytes, and a time of its own", bigSize),
		"\tits own ms, here\twith slower syncs\tgoal, of fdatasync\treached from a sync of\tto be tried with\t", func(row func(...string)) {
			for _, t := range b.slower.targets {
				if !t.sink {
					continue
				}
				quick := own(median(b.here.measured[t.name], bigRate), here)
				slow := own(median(b.slower.measured[t.name], bigRate), d)
				from, try := "too unsteady to tell", "-"
				if quick > 0 && slow > 0 {
					least, most := reaches(t.goalShare(), min(quick, slow)), reaches(t.goalShare(), max(quick, slow))
					from = fmt.Sprintf("%.2f to %.2f ms", least, most)
					if longer := most - here.transaction(); longer > 0 {
						try = fmt.Sprintf("-sync %.2fms", longer)
					}
				}
				row(t.title, number("%.2f", quick), number("%.2f", slow), fmt.Sprintf("%.2f", t.goalShare()), from, try)
			}
		})
}

// transaction is what a large transaction takes, in ms, at so many events a second.
func transaction(rate float64) float64 { return bigSize / rate * 1000 }

// transaction is what the disk takes for the bytes of a large one, in ms.
func (d disk) transaction() float64 { return transaction(d.rate) }

// own is what a target takes for a large transaction beside the sync that it waits for, in ms. It is not above 0 where the
// target was faster than the disk, which is what a busy machine makes of it.
func own(rate float64, d disk) float64 { return transaction(rate) - d.transaction() }

// reaches gives the sync in ms from which on a target that takes so much of its own has this share of what the disk
// allows: sync / (own + sync).
func reaches(share, own float64) float64 { return share * own / (1 - share) }
