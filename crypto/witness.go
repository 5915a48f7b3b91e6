//go:build goolm

package crypto

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix"

	"github.com/trestle-bridge/trestle/store"
)

// A database that was put back to an older state has keys as they were then. Used once more they would encrypt twice at the same place, and what is
// encrypted with an old Olm session the other side has had already and refuses. No database can see that by itself. So it has a word in common with the
// homeserver, in the bot's account data: another one at each start and from time to time. When the two differ, one of them is of an older day.

const (
	// witnessType is the type of the bot's account data.
	witnessType = "io.github.trestle-bridge.store"
	// witnessSetting holds the same in the store, as JSON of words.
	witnessSetting = "crypto.witness"
	// doubtSetting names the last time that the two differed. Whatever depends on the store's being the last is compared with the homeserver once after it.
	doubtSetting = "crypto.doubt"
	// witnessEvery is how often the word changes. A copy that was made and put back between two changes is not noticed.
	witnessEvery = 10 * time.Minute
)

// words are those that the homeserver may have: the last that it took, and one that it perhaps has taken.
type words struct {
	Told    string `json:"told"`
	Telling string `json:"telling,omitempty"`
}

// witness is what is known of the store.
type witness struct {
	sure  atomic.Bool // it was compared with the homeserver
	mu    sync.Mutex
	doubt atomic.Pointer[string] // what doubtSetting was then
}

// doubted is empty while the two have never differed, and before they were compared.
func (w *witness) doubted() string {
	if doubt := w.doubt.Load(); doubt != nil {
		return *doubt
	}
	return ""
}

// sureOfStore makes certain before any key is used that the store is no older one than the bridge has had. What is old is not used again: rooms get
// new keys, and those are given with new Olm sessions.
func (c *Crypto) sureOfStore(ctx context.Context) error {
	if c.witness.sure.Load() {
		return nil
	}
	c.witness.mu.Lock()
	defer c.witness.mu.Unlock()
	if c.witness.sure.Load() {
		return nil
	}
	if err := c.compareWords(ctx); err != nil {
		return fmt.Errorf("find out whether the database was put back to an older state: %w", c.as.Explain(err))
	}
	c.witness.sure.Store(true)
	return nil
}

func (c *Crypto) compareWords(ctx context.Context) error {
	if err := c.as.Bot().EnsureRegistered(ctx); err != nil {
		return err
	}
	var there struct {
		Word string `json:"word"`
	}
	if err := c.as.Bot().Client("").GetAccountData(ctx, witnessType, &there); err != nil && !errors.Is(err, mautrix.MNotFound) {
		return err
	}
	own, err := c.readWords(ctx)
	if err != nil {
		return err
	}
	if there.Word != own.Told && (there.Word != own.Telling || own.Telling == "") {
		c.log.Warn().Msg("The database is not the one that the bridge had last: it was put back to an older state. Rooms get new keys")
		if err := c.retireKeys(ctx); err != nil {
			return err
		}
		own.Telling = "" // of the older state; told now, a copy of that would be the database that the bridge had last
	}
	raw, err := c.store.Setting(ctx, doubtSetting)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	doubt := string(raw)
	c.witness.doubt.Store(&doubt)
	return c.tellWord(ctx, own)
}

func (c *Crypto) readWords(ctx context.Context) (own words, err error) {
	raw, err := c.store.Setting(ctx, witnessSetting)
	if errors.Is(err, store.ErrNotFound) {
		return own, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &own)
	}
	return own, err
}

// retireKeys has no key be used again for what is sent. What people send to the old Olm sessions may still be read.
func (c *Crypto) retireKeys(ctx context.Context) error {
	err := c.commit(ctx, func(_ context.Context, tx *store.Tx) error {
		if err := tx.DropAllRoomKeys(); err != nil {
			return err
		}
		if err := tx.PutSetting(doubtSetting, []byte(rand.Text())); err != nil {
			return err
		}
		return tx.RetireOlmSessions()
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	var loaded []*machine
	for _, m := range c.machines {
		loaded = append(loaded, m)
	}
	c.mu.Unlock()
	for _, m := range loaded { // mautrix keeps sessions in memory
		unlock, err := m.lockOlm(ctx)
		if err != nil {
			return err
		}
		m.discard()
		unlock()
	}
	return nil
}

// tellWord gives the homeserver another word. It is in the store before and after: whenever the process ends, the store has the homeserver's. While it is not
// known whether the homeserver has taken one, that one is told again, and another only then: so it never has one that the store has no more.
func (c *Crypto) tellWord(ctx context.Context, own words) error {
	tell := func(word string) error {
		return c.as.Bot().Client("").SetAccountData(ctx, witnessType, map[string]string{"word": word})
	}
	if own.Telling != "" {
		if err := tell(own.Telling); err != nil {
			return err
		}
		own = words{Told: own.Telling}
	}
	own.Telling = rand.Text()
	if err := c.putWords(ctx, own); err != nil {
		return err
	}
	if err := tell(own.Telling); err != nil {
		return err
	}
	return c.putWords(ctx, words{Told: own.Telling})
}

func (c *Crypto) putWords(ctx context.Context, own words) error {
	return c.commit(ctx, func(_ context.Context, tx *store.Tx) error {
		raw, err := json.Marshal(own)
		if err != nil {
			return err
		}
		return tx.PutSetting(witnessSetting, raw)
	})
}

// tellWordNowAndThen goes on with it until the end.
func (c *Crypto) tellWordNowAndThen(every time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.running.Go(func() {
		<-c.quit
		cancel()
	})
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-tick.C:
		}
		if !c.witness.sure.Load() {
			continue
		}
		own, err := c.readWords(ctx)
		if err == nil {
			err = c.tellWord(ctx, own)
		}
		if err != nil {
			c.log.Debug().Err(c.as.Explain(err)).Msg("The homeserver was not told that the database has gone on; it is told later")
		}
	}
}
