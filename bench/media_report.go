package main

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"text/tabwriter"
)

// The goals of the design for the media proxy.
const (
	goalNginx     = 0.9      // of what nginx serves
	goalGrowth    = 32 << 20 // bytes, while 1 GiB is served
	goalEncrypted = 0.5      // of AES-CTR and SHA-256 in memory
)

func sizeName(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func (r *mediaRow) title() string {
	if r.cached {
		return sizeName(r.size) + ", cached, to a static file"
	}
	return sizeName(r.size) + ", not cached, to proxy_pass"
}

func (m *mediaBench) report(w io.Writer) {
	fmt.Fprintf(w, "\nThe media proxy: %d processors, %s/%s, %s; medians of %d rounds; plain media over %d connections.\n\n",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), m.options.rounds, mediaConnections)
	perRequest := func(d download, size int64) float64 {
		if d.cpu == 0 {
			return math.NaN()
		}
		return float64(d.cpu.Microseconds()) * float64(size) / float64(d.bytes)
	}
	if m.nginx != nil {
		table(w, "Plain media, beside nginx (proxy_pass without a cache; a static file by sendfile)",
			"\tx nginx\tnet/http alone\tlowest\thighest\trequests/s\tMiB/s\tnginx MiB/s\tCPU us/request\tnginx CPU\tx CPU\t", func(row func(...string)) {
				for _, r := range m.rows {
					low, high := math.Inf(1), math.Inf(-1)
					for _, b := range r.rounds {
						low, high = min(low, b.ratio()), max(high, b.ratio())
					}
					rate := median(r.rounds, func(b beside) float64 { return b.proxy.bytesPerSecond() })
					row(r.title(), number("%.2f", median(r.rounds, beside.ratio)), number("%.2f", median(r.rounds, beside.floor)), number("%.2f", low), number("%.2f", high),
						number("%.0f", rate/float64(r.size)), number("%.0f", rate/(1<<20)),
						number("%.0f", median(r.rounds, func(b beside) float64 { return b.nginx.bytesPerSecond() })/(1<<20)),
						number("%.0f", median(r.rounds, func(b beside) float64 { return perRequest(b.proxy, r.size) })),
						number("%.0f", median(r.rounds, func(b beside) float64 { return perRequest(b.nginx, r.size) })),
						number("%.2f", median(r.rounds, beside.cpu)))
				}
			})
	}
	fmt.Fprint(w, "net/http alone is what a handler that does nothing but write bytes from memory has of nginx's figure.\n\n")
	fmt.Fprintf(w, "Encrypted media, %s to one reader, beside AES-CTR and SHA-256 of the same bytes in memory: from the cache %s x, fetched, verified and served %s x.\n",
		sizeName(encryptedSize), number("%.2f", m.ofMemory(func(s secret) download { return s.cached })), number("%.2f", m.ofMemory(func(s secret) download { return s.fetched })))
	fmt.Fprintf(w, "The check of a link: %.0f ns, %.2f x one HMAC-SHA256 of as many bytes.\n\n", m.linkNanoseconds, m.linkRatio)

	fmt.Fprintln(w, "Goals of the design")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	goal := func(what, value, limit string, reached bool) {
		verdict := "not reached"
		if reached {
			verdict = "reached"
		}
		fmt.Fprintf(t, "  %s\t%s\t(%s)\t%s\n", what, value, limit, verdict)
	}
	if m.nginx != nil {
		for _, r := range m.rows {
			ratio := median(r.rounds, beside.ratio)
			goal(r.title()+" of nginx", number("%.2f x", ratio), fmt.Sprintf("at least %.2f x", goalNginx), ratio >= goalNginx)
		}
	}
	for _, g := range m.growth {
		goal("memory while 1 GiB is served "+g.what, fmt.Sprintf("%.1f MiB more", float64(g.bytes)/(1<<20)), fmt.Sprintf("under %d MiB", goalGrowth>>20), g.bytes < goalGrowth)
	}
	for _, e := range []struct {
		what string
		of   func(secret) download
	}{{"from the cache", func(s secret) download { return s.cached }}, {"fetched and verified", func(s secret) download { return s.fetched }}} {
		ratio := m.ofMemory(e.of)
		goal("encrypted media, "+e.what+", to AES-CTR and SHA-256 in memory", number("%.2f x", ratio), fmt.Sprintf("at least %.2f x", goalEncrypted), ratio >= goalEncrypted)
	}
	_ = t.Flush()
	if m.missing != "" {
		fmt.Fprintf(w, "NOT MEASURED: %s\n", m.missing)
	}
	fmt.Fprintln(w, "Every byte of every answer was compared with the file's.")
}

func (m *mediaBench) ofMemory(of func(secret) download) float64 {
	return median(m.secret, func(s secret) float64 { return of(s).bytesPerSecond() / s.memory })
}
