//go:build goolm

package crypto_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	olm "maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

// lost is a message of an account for a one-time key that nobody has made.
func (h *hand) lost(from *olm.OlmAccount) *appservice.Event {
	w := h.p.w
	w.t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	session, err := from.Internal.NewOutboundSession(h.device.IdentityKey, id.Curve25519(base64.RawStdEncoding.EncodeToString(key)))
	w.no(err)
	_, body, err := session.Encrypt([]byte("{}"))
	w.no(err)
	return h.message(map[string]any{
		"algorithm": id.AlgorithmOlmV1, "sender_key": from.IdentityKey(),
		"ciphertext": map[string]any{string(h.device.IdentityKey): map[string]any{"type": id.OlmMsgTypePreKey, "body": string(body)}},
	})
}

// refused hands a message to the bridge that it cannot read, and waits for what it makes of it.
func (w *world) refused(ev *appservice.Event) {
	w.t.Helper()
	if err := w.crypto.HandleKeys(w.t.Context(), ev); !appservice.IsPermanent(err) {
		w.t.Fatalf("it was taken: %v", err)
	}
	w.crypto.Mended()
}

// Anybody can make up keys, as many as he likes. Each once cost a question to the homeserver while the device's Olm lock was held, and the first all one-time keys.
func TestMend_KeysThatNoDeviceHas_CostOneQuestionAndNoKey(t *testing.T) {
	w, _, _, h := prepared(t)
	w.with(func(*crypto.Options) {})
	queries, claims := w.requests("/keys/query"), w.requests("/keys/claim")
	for range 50 {
		w.refused(h.lost(olm.NewOlmAccount()))
	}
	if queries, claims = w.requests("/keys/query")-queries, w.requests("/keys/claim")-claims; queries != 1 || claims != 0 {
		t.Errorf("50 messages from devices that there are not caused %d questions and %d claims", queries, claims)
	}
}

// A server may have any number of users who write so, each for the first time.
func TestMend_KeysThatNoDeviceHas_OfManySenders_CostAFewQuestions(t *testing.T) {
	w, _, _, h := prepared(t)
	w.with(func(*crypto.Options) {})
	queries, began := w.requests("/keys/query"), time.Now()
	for n := range 40 {
		ev := h.lost(olm.NewOlmAccount())
		sender := id.UserID(fmt.Sprintf("@made-up%d:hs.test", n))
		ev.Raw = bytes.ReplaceAll(ev.Raw, []byte(ev.Sender), []byte(sender))
		ev.Sender = sender
		w.refused(ev)
	}
	queries = w.requests("/keys/query") - queries
	if most := crypto.UnknownAtOnce + int(time.Since(began)/crypto.UnknownEvery) + 1; queries < crypto.UnknownAtOnce || queries > most {
		t.Errorf("40 senders caused %d questions, want %d to %d", queries, crypto.UnknownAtOnce, most)
	}
}

// What the homeserver says of a device that the store does not know is asked for once, and kept where it is the sender's.
func TestMend_DeviceThatTheStoreDoesNotKnow_CostsOneQuestion_AndIsKeptIfItHasTheKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.with(func(*crypto.Options) {})
		bot := w.as.Bot().UserID()
		w.no(w.crypto.Prepare(t.Context(), bot))
		bob := newPerson(w, "bob")
		h := w.hand(bob, bot)
		queries, claims := w.requests("/keys/query"), w.requests("/keys/claim")
		for _, c := range []struct {
			from            *olm.OlmAccount
			devices, claims int
		}{{olm.NewOlmAccount(), 0, 0}, {bob.olm.GetAccount(), 1, 1}} {
			crypto.ForgetUnknown(w.crypto, bob.ID())
			w.refused(h.lost(c.from))
			if n := w.requests("/keys/query") - queries; n != 1 {
				t.Errorf("%d questions", n)
			}
			if n := w.requests("/keys/claim") - claims; (n > 0) != (c.claims > 0) {
				t.Errorf("%d claims, want %d", n, c.claims)
			}
			for _, table := range []string{"crypto_device", "crypto_tracked_user"} {
				if n := w.count(`SELECT COUNT(*) FROM `+table+` WHERE user_id = $1`, bob.ID()); n != c.devices {
					t.Errorf("%s has %d rows of him, want %d", table, n, c.devices)
				}
			}
			queries = w.requests("/keys/query")
		}
	})
}

func TestMend_DeviceThatGoesOnWritingToLostKeys_HasThemReplacedOnce_AlsoAfterRestarts(t *testing.T) {
	w, bot, _, h := prepared(t)
	w.with(func(*crypto.Options) {})
	claims, uploads := w.requests("/keys/claim"), w.requests("/keys/upload")
	for range 4 {
		w.with(func(*crypto.Options) {}) // a process that is ended again and again
		for range 3 {
			w.refused(h.lost(w.alice.olm.GetAccount()))
		}
	}
	// Of the device's own as many as there were, and one that says that there are no more; and one of the sender's for each process.
	if n := w.requests("/keys/claim") - claims; n > crypto.OutstandingKeys+1+4 {
		t.Errorf("%d claims", n)
	}
	if w.requests("/keys/upload") == uploads {
		t.Error("they were not replaced")
	}
	if left := w.keysLeft(bot); left != crypto.OutstandingKeys {
		t.Errorf("%d keys are left", left)
	}
}

// A sender's homeserver may take its time, as often as it is asked. What others have sent to the same device must not wait for it.
func TestMend_HomeserverThatIsSlow_HoldsUpNoMessageThatCanBeRead(t *testing.T) {
	for path, from := range map[string]func(w *world) *olm.OlmAccount{
		"/keys/query": func(*world) *olm.OlmAccount { return olm.NewOlmAccount() },
		"/keys/claim": func(w *world) *olm.OlmAccount { return w.alice.olm.GetAccount() },
	} {
		t.Run(path, func(t *testing.T) {
			w, bot, room, h := prepared(t)
			w.with(func(*crypto.Options) {})
			key := w.roomKey(room)
			good := h.encrypt(h.payload(key))
			if path == "/keys/claim" {
				w.no(w.crypto.HandleKeys(t.Context(), good)) // which tells of the device
				w.crypto.Repaired(t.Context(), bot)
			}
			asked, answer := make(chan struct{}, 100), make(chan struct{})
			w.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, path) {
					asked <- struct{}{}
					<-answer
				}
				return false
			})
			defer close(answer)
			if err := w.crypto.HandleKeys(t.Context(), h.lost(from(w))); !appservice.IsPermanent(err) {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			select {
			case <-asked:
			case <-ctx.Done():
				t.Fatal("nothing was asked")
			}
			w.no(w.crypto.HandleKeys(ctx, good))
			if _, err := w.crypto.Open(ctx, w.alice.sealedWith(key, "$1", "x"), bot); err != nil {
				t.Error(err)
			}
		})
	}
}

type memorySecrets map[id.Secret]string

func (s memorySecrets) GetSecret(_ context.Context, name id.Secret) (string, error) {
	return s[name], nil
}
func (s memorySecrets) PutSecret(_ context.Context, name id.Secret, value string) error {
	s[name] = value
	return nil
}

func TestMend_OneTimeKeys_AreReplacedMoreAndMoreSeldom(t *testing.T) {
	secrets, now := memorySecrets{}, time.Now()
	var waits []time.Duration
	last := now
	for end := now.Add(10 * 24 * time.Hour); now.Before(end); now = now.Add(10 * time.Minute) {
		may, err := crypto.MayRepair(t.Context(), secrets, now)
		if err != nil {
			t.Fatal(err)
		}
		if may {
			waits = append(waits, now.Sub(last))
			last = now
		}
	}
	if len(waits) > 15 || waits[1] < crypto.RepairEvery || crypto.RepairEvery < crypto.FallbackFor || waits[len(waits)-1] < crypto.RepairSeldom {
		t.Errorf("%d times in ten days, the first two %s, the last %s apart", len(waits), waits[1], waits[len(waits)-1])
	}
	if may, err := crypto.MayRepair(t.Context(), secrets, last.Add(3*crypto.RepairSeldom)); err != nil || !may {
		t.Errorf("%t %v", may, err)
	}
	if may, _ := crypto.MayRepair(t.Context(), secrets, last.Add(3*crypto.RepairSeldom+crypto.RepairEvery)); !may {
		t.Error("who was quiet for long does not begin anew")
	}
}

func TestBackoff_IsTwiceAsLongEachTime_ForEachNameAlone(t *testing.T) {
	b, now := crypto.NewBackoff(time.Minute, 4*time.Minute), time.Now()
	for _, c := range []struct {
		after time.Duration
		may   bool
	}{{0, true}, {59 * time.Second, false}, {time.Second, true}, {119 * time.Second, false}, {time.Second, true}, {4 * time.Minute, true}, {239 * time.Second, false}, {time.Second, true},
		{8 * time.Minute, true}, {time.Minute, true}} {
		now = now.Add(c.after)
		if got := b.May("a", now); got != c.may {
			t.Errorf("after %s: %t", c.after, got)
		}
	}
	if !b.May("b", now) {
		t.Error("another name waits")
	}
}

func TestPace_IsForAllTogether(t *testing.T) {
	now := time.Now()
	may := crypto.NewPace(3, time.Second)
	for n, want := range []bool{true, true, true, false, false} {
		if may(now) != want {
			t.Errorf("%d", n)
		}
	}
	if !may(now.Add(time.Second)) || may(now.Add(time.Second)) {
		t.Error("one in a while is not one")
	}
	now = now.Add(time.Hour)
	for n, want := range []bool{true, true, true, false} {
		if may(now) != want {
			t.Errorf("%d, later", n)
		}
	}
}
