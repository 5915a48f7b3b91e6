package bridgetest

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"
)

// PushFault is something that goes wrong with the next requests that the homeserver makes to an appservice. Either way the
// homeserver counts the attempt as failed, and does what it does then.
type PushFault struct {
	AppService string         // its ID; empty: any
	Path       *regexp.Regexp // matched against what follows /_matrix/app/v1/; nil: transactions
	Times      int            // how many requests it hits; 0 is 1, negative is all
	// Delay is waited, on the homeserver's clock, before the request leaves. Alone it makes nothing fail.
	Delay time.Duration
	// CutRequest breaks the connection in the middle of the body.
	CutRequest bool
	// LoseAnswer lets the request arrive and throws the answer away, whatever it is.
	LoseAnswer bool
}

type pushFaults struct {
	mu   sync.Mutex
	list []*PushFault
}

// PushFault makes the next requests to appservices that match go wrong. Faults are tried in the order they were added.
func (hs *Homeserver) PushFault(f PushFault) {
	if f.Times == 0 {
		f.Times = 1
	}
	hs.pushFaults.mu.Lock()
	defer hs.pushFaults.mu.Unlock()
	hs.pushFaults.list = append(hs.pushFaults.list, &f)
}

// take returns the fault that hits this request, if one does.
func (f *pushFaults) take(service, path string) *PushFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.list {
		if fault.AppService != "" && fault.AppService != service {
			continue
		}
		if fault.Path == nil && !strings.HasPrefix(path, "transactions/") || fault.Path != nil && !fault.Path.MatchString(path) {
			continue
		}
		if fault.Times > 0 {
			fault.Times--
			if fault.Times == 0 {
				f.list = append(f.list[:i:i], f.list[i+1:]...)
			}
		}
		return fault
	}
	return nil
}

var errCut = errors.New("connection reset by the test")

// brokenReader is the rest of a body that is never sent.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errCut }

// sleep waits on the homeserver's clock.
func (hs *Homeserver) sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	due, stop := hs.opts.Clock.until(hs.opts.Clock.Now().Add(d))
	defer stop()
	select {
	case <-due:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Section is a list in a transaction.
type Section int

const (
	EventSection Section = iota
	EphemeralSection
	ToDeviceSection
	sections
)

// Poison puts elements, each any JSON value, before those that the next transaction to an appservice has in a section: what
// a bridge must survive, with good neighbours. They are part of the transaction, and come again when it does, as long as the
// homeserver keeps that section.
func (hs *Homeserver) Poison(appService string, in Section, elements ...string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	as := hs.services[appService]
	if as == nil || in < 0 || in >= sections {
		return
	}
	for _, element := range elements {
		as.poison[in] = append(as.poison[in], json.RawMessage(element))
	}
}
