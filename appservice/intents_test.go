package appservice

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix/id"
)

func TestIntents_ThatNobodyUses_Go_AndOneInUseStaysOne(t *testing.T) {
	hs := newFakeHS(t)
	f := newFixture(t, hs)
	held := f.as.Ghost(ghostA)
	if err := held.EnsureRegistered(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n := range 10 * recentIntents {
		f.as.Ghost(id.UserID(fmt.Sprintf("@irc_%d:hs.test", n)))
	}
	known := func() int {
		f.as.intents.mu.Lock()
		defer f.as.intents.mu.Unlock()
		return len(f.as.intents.all)
	}
	for known() > 2*recentIntents+1 { // the collector takes them in its time
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if again := f.as.Ghost(ghostA); again != held {
		t.Error("there are two intents of one ghost")
	}
	runtime.KeepAlive(held)
}

func TestIntents_ConcurrentCalls_GetTheSameOne(t *testing.T) {
	f := newFixture(t, newFakeHS(t))
	var all sync.WaitGroup
	got := make([]*Intent, 64)
	for n := range got {
		all.Go(func() {
			for m := range 100 {
				f.as.Ghost(id.UserID(fmt.Sprintf("@irc_%d_%d:hs.test", n, m)))
			}
			got[n] = f.as.Ghost(ghostA)
		})
	}
	all.Wait()
	for _, i := range got {
		if i != got[0] {
			t.Fatal("there are two intents of one ghost")
		}
	}
}
