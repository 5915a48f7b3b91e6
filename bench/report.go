package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// The goals of the design.
const (
	goalPeer     = 2.0  // times the acknowledgements of mautrix-go
	goalSQLite   = 0.3  // of what the disk allows
	goalPostgres = 0.15 // of what the disk allows
	goalP50      = 5.0  // times one fdatasync
	goalP99      = 3.0
	goalIdle     = 30 << 20 // bytes
	goalBacklog  = 64 << 20 // bytes, with 100,000 events
	goalMany     = 1.0      // times what an event of few rooms costs
)

// median gives the middle of what f makes of values; NaN when there are none.
func median[T any](values []T, f func(T) float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	all := make([]float64, len(values))
	for i, v := range values {
		all[i] = f(v)
	}
	slices.Sort(all)
	if n := len(all); n%2 == 0 {
		return (all[n/2-1] + all[n/2]) / 2
	}
	return all[len(all)/2]
}

// number prints a figure, or a dash where there is none.
func number(format string, v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func bigRate(m *measurement) float64    { return m.big.EventsPerSecond() }
func singleRate(m *measurement) float64 { return m.single.EventsPerSecond() }
func p50(m *measurement) float64        { return milliseconds(m.single.Latency(0.5)) }
func p99(m *measurement) float64        { return milliseconds(m.single.Latency(0.99)) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (b *bench) report(w io.Writer) {
	dir, _ := filepath.Abs(b.options.dir)
	fs := fileSystem(dir)
	fmt.Fprintf(w, "\n%d processors, %s/%s, %s; data on %s; medians of %d rounds of %g s; one connection, %d rooms.\n",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), fs, b.options.rounds, b.options.seconds, rooms)
	if fs == tmpfs {
		fmt.Fprintln(w, "A file system in memory makes nothing durable: the shares of the disk mean nothing here.")
	}
	disk := b.here.disk()
	fmt.Fprintf(w, "fdatasync of the same bytes: %s events/s in hundreds; one event p50 %s ms, p99 %s ms.\n\n",
		number("%.0f", disk.rate), number("%.3f", disk.p50), number("%.3f", disk.p99))
	b.throughput(w, disk)
	b.acknowledgement(w, disk)
	b.cost(w)
	b.manyRooms(w)
	b.waiting(w)
	b.onSlower(w, disk)
	b.goals(w)
	for _, what := range b.missing {
		fmt.Fprintf(w, "NOT MEASURED: %s\n", what)
	}
}

// disk is what the disk allows; file what a server that only writes bodies down does with it.
type disk struct{ rate, single, p50, p99, file float64 }

func (s *series) disk() disk {
	return disk{
		rate:   median(s.probes, func(p *probe) float64 { return p.big.eventsPerSecond() }),
		single: median(s.probes, func(p *probe) float64 { return p.single.eventsPerSecond() }),
		p50:    median(s.probes, func(p *probe) float64 { return milliseconds(p.single.latency(0.5)) }),
		p99:    median(s.probes, func(p *probe) float64 { return milliseconds(p.single.latency(0.99)) }),
		file:   median(s.measured["file"], bigRate),
	}
}

// peer gives the median of a peer, NaN when it was not measured.
func (b *bench) peer(mode string, f func(*measurement) float64) float64 {
	return median(b.here.measured["peer-"+mode], f)
}

func table(w io.Writer, title string, header string, rows func(row func(cells ...string))) {
	fmt.Fprintln(w, title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, header)
	rows(func(cells ...string) {
		for _, c := range cells {
			fmt.Fprint(t, c, "\t")
		}
		fmt.Fprintln(t)
	})
	_ = t.Flush()
	fmt.Fprintln(w)
}

func (b *bench) throughput(w io.Writer, d disk) {
	async, sync := b.peer("async", bigRate), b.peer("sync", bigRate)
	table(w, fmt.Sprintf("Transactions of %d events (about 58 KB), acknowledged", bigSize),
		"\tevents/s\tx async peer\tx sync peer\tof fdatasync\tof a file over HTTP\tp50 ms\tp99 ms\thandled/s\t", func(row func(...string)) {
			for _, t := range b.here.targets {
				ms := b.here.measured[t.name]
				rate := median(ms, bigRate)
				row(t.title, number("%.0f", rate), number("%.2f", rate/async), number("%.2f", rate/sync), number("%.2f", rate/d.rate), number("%.2f", rate/d.file),
					number("%.2f", median(ms, func(m *measurement) float64 { return milliseconds(m.big.Latency(0.5)) })),
					number("%.2f", median(ms, func(m *measurement) float64 { return milliseconds(m.big.Latency(0.99)) })),
					number("%.0f", median(kept(t, ms), handledRate)))
			}
		})
	fmt.Fprint(w, "Writing the same to a file over HTTP is what no intake can beat here, whether the disk is the limit or the processor.\n\n")
}

// kept are the measurements of a target that handles what it acknowledges; the file does not.
func kept(t *target, ms []*measurement) []*measurement {
	if t.keeps {
		return nil
	}
	return ms
}

// handledRate counts to the last event's handler, not to the last acknowledgement.
func handledRate(m *measurement) float64 {
	return float64(m.big.Events) / (m.big.Elapsed + m.handling).Seconds()
}

func (b *bench) acknowledgement(w io.Writer, d disk) {
	table(w, "Transactions of 1 event, acknowledged",
		"\tper second\tp50 ms\tp99 ms\tp50 x fdatasync\tp99 x fdatasync\t", func(row func(...string)) {
			for _, t := range b.here.targets {
				ms := b.here.measured[t.name]
				row(t.title, number("%.0f", median(ms, singleRate)), number("%.3f", median(ms, p50)), number("%.3f", median(ms, p99)),
					number("%.1f", median(ms, p50)/d.p50), number("%.1f", median(ms, p99)/d.p99))
			}
		})
}

// mib prints bytes, and a dash for 0: they cannot be had everywhere.
func mib[T any](values []T, f func(T) int64) string {
	return number("%.0f", median(values, func(v T) float64 {
		if n := f(v); n != 0 {
			return float64(n) / (1 << 20)
		}
		return math.NaN()
	}))
}

// cpuPerEvent is in microseconds.
func cpuPerEvent(m *measurement) float64 {
	if m.cpu == 0 {
		return math.NaN()
	}
	return float64(m.cpu.Microseconds()) / float64(m.big.Events)
}

func (b *bench) cost(w io.Writer) {
	table(w, "What it costs (the shares are of the time between a transaction's first byte in the sink and its answer)",
		"\tRSS idle MiB\tbusy MiB\tCPU us/event\tparsing\tcommit\thand-over\treading, answering\t", func(row func(...string)) {
			for _, t := range b.here.targets {
				ms := b.here.measured[t.name]
				share := func(part func(stats) float64) string {
					return number("%.3f", median(ms, func(m *measurement) float64 { return part(m.stats) / m.stats.RequestTime }))
				}
				row(t.title, mib(ms, func(m *measurement) int64 { return m.idle }), mib(ms, func(m *measurement) int64 { return m.busy }),
					number("%.1f", median(ms, cpuPerEvent)), share(func(s stats) float64 { return s.ParseTime }), share(func(s stats) float64 { return s.CommitTime }),
					share(func(s stats) float64 { return s.HandOver }),
					share(func(s stats) float64 { return s.RequestTime - s.ParseTime - s.CommitTime - s.HandOver }))
			}
		})
	if len(b.servers) > 0 {
		fmt.Fprint(w, "The processor time and the memory of the PostgreSQL server itself are not in these figures.\n\n")
	}
}

func (b *bench) manyRooms(w io.Writer) {
	table(w, fmt.Sprintf("Transactions of %d events over %d rooms, so that each event has a lane of its own, beside %d rooms; a row is written for each event", bigSize, manyRooms, rooms),
		"\trooms\tevents/s\thandled/s\tCPU us/event\tx events/s\tx handled/s\tx CPU\tbusy MiB\tafterwards MiB\t", func(row func(...string)) {
			for _, t := range b.here.targets {
				few := b.few[t.name]
				for _, of := range []struct {
					rooms int
					ms    []*measurement
				}{{rooms, few}, {manyRooms, b.many[t.name]}} {
					ms := of.ms
					if len(ms) == 0 {
						continue
					}
					row(t.title, fmt.Sprint(of.rooms), number("%.0f", median(ms, bigRate)), number("%.0f", median(ms, handledRate)), number("%.1f", median(ms, cpuPerEvent)),
						number("%.2f", median(ms, bigRate)/median(few, bigRate)), number("%.2f", median(ms, handledRate)/median(few, handledRate)),
						number("%.2f", median(ms, cpuPerEvent)/median(few, cpuPerEvent)),
						mib(ms, func(m *measurement) int64 { return m.busy }), mib(ms, func(m *measurement) int64 { return m.after }))
				}
			}
		})
}

func (b *bench) waiting(w io.Writer) {
	if len(b.backlogs) == 0 {
		return
	}
	k := b.backlogs[0]
	table(w, fmt.Sprintf("A backlog of %d events in %s: RSS in MiB", k.events, k.target.title),
		"rooms\twhile it grows\tafter a kill and a start\tstart s\twhile it is worked off\thandled/s\tafterwards\t", func(row func(...string)) {
			for _, k := range b.backlogs {
				one := []*backlog{k}
				row(fmt.Sprint(k.rooms), mib(one, func(k *backlog) int64 { return k.full }), mib(one, func(k *backlog) int64 { return k.started }),
					number("%.2f", k.start.Seconds()), mib(one, func(k *backlog) int64 { return k.working }),
					number("%.0f", float64(k.events)/k.work.Seconds()), mib(one, func(k *backlog) int64 { return k.after }))
			}
		})
}

func (b *bench) goals(w io.Writer) {
	fmt.Fprintln(w, "Goals of the design")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	goal := func(title, what string, format string, value, limit float64, atLeast bool) {
		if math.IsNaN(value) {
			return
		}
		verdict, sign := "not reached", "at most"
		if atLeast {
			sign = "at least"
		}
		if atLeast && value >= limit || !atLeast && value <= limit {
			verdict = "reached"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t(%s %s)\t%s\n", title, what, fmt.Sprintf(format, value), sign, fmt.Sprintf(format, limit), verdict)
	}
	for _, target := range b.here.targets {
		ms := b.here.measured[target.name]
		if !target.sink {
			continue
		}
		if target.server == nil {
			rate := median(ms, bigRate)
			goal(target.title, "acknowledged events, to mautrix-go async", "%.2f x", rate/b.peer("async", bigRate), goalPeer, true)
			goal(target.title, "acknowledged events, to mautrix-go sync", "%.2f x", rate/b.peer("sync", bigRate), goalPeer, true)
		}
		for _, s := range b.disks() {
			d, ms := s.disk(), s.measured[target.name]
			goal(target.title, "share of fdatasync, "+s.where(d), "%.3f", median(ms, bigRate)/d.rate, target.goalShare(), true)
			goal(target.title, "one event, p50, to one fdatasync, "+s.where(d), "%.1f x", median(ms, p50)/d.p50, goalP50, false)
			goal(target.title, "one event, p99, to one fdatasync, "+s.where(d), "%.1f x", median(ms, p99)/d.p99, goalP99, false)
		}
		if idle := median(ms, func(m *measurement) float64 { return float64(m.idle) }); idle > 0 {
			goal(target.title, "RSS when idle", "%.0f MiB", idle/(1<<20), goalIdle/(1<<20), false)
		}
		few, many := b.few[target.name], b.many[target.name]
		goal(target.title, fmt.Sprintf("CPU for an event of %d rooms, to one of %d", manyRooms, rooms), "%.2f x", median(many, cpuPerEvent)/median(few, cpuPerEvent), goalMany, false)
		goal(target.title, fmt.Sprintf("handled events with %d rooms, to %d", manyRooms, rooms), "%.2f x", median(many, handledRate)/median(few, handledRate), goalMany, true)
	}
	for _, k := range b.backlogs {
		if most := max(k.full, k.started, k.working); most > 0 {
			goal(k.target.title, fmt.Sprintf("RSS with %d events of %d rooms waiting, and while they are worked off", k.events, k.rooms), "%.0f MiB",
				float64(most)/(1<<20), goalBacklog/(1<<20), false)
		}
	}
	_ = t.Flush()
	fmt.Fprintln(w, "After every run: the peers handled as many events as were sent; the sinks each event once and in order, counted in the store.")
}
