package store

import (
	"time"

	"github.com/rs/zerolog"
)

// Options of [Open]. The zero value is usable.
type Options struct {
	Log zerolog.Logger
	// SeenEvents is how many de-duplication hashes are kept; zero means 200,000 (about 12 MB of memory).
	SeenEvents int
	Retention  Retention
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Retention says how long things are kept. Zero means the default; see the package documentation.
type Retention struct {
	DeadLetters time.Duration // since burial; default 90 days
	Messages    time.Duration // since the message; default 365 days
	Remote      time.Duration // remote keys, since Enqueue; default 30 days
	Media       time.Duration // media records, since their expiry; default 30 days
}

const day = 24 * time.Hour

func (o Options) withDefaults() Options {
	if o.SeenEvents <= 0 {
		o.SeenEvents = 200_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		value *time.Duration
		days  time.Duration
	}{
		{&o.Retention.DeadLetters, 90}, {&o.Retention.Messages, 365}, {&o.Retention.Remote, 30}, {&o.Retention.Media, 30},
	} {
		if *d.value <= 0 {
			*d.value = d.days * day
		}
	}
	return o
}
