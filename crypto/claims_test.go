//go:build goolm

package crypto_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

func TestClaims_FiveHundredGhosts_DrainNobody(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	const ghosts = 60 // each as good as the next; 500 take their time on a small machine
	var names []id.UserID
	for n := range ghosts {
		names = append(names, w.ghost(fmt.Sprintf("g%d", n)))
	}
	room := w.room(names...)
	for _, ghost := range names {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	left := func() int {
		resp, err := w.alice.client.UploadKeys(t.Context(), &mautrix.ReqUploadKeys{})
		w.no(err)
		return resp.OneTimeKeyCounts.SignedCurve25519
	}
	full := left()
	if full != 50 {
		t.Errorf("preparing has cost %d keys", 50-full)
	}
	waits, began := 0, time.Now()
	for _, ghost := range names {
		if _, err := w.seal(ghost, room, "x"); errors.Is(err, crypto.ErrClaims) {
			if wait := appservice.LaterWait(err); wait <= 0 || wait > crypto.ClaimsLongest {
				t.Errorf("it says to wait %s: %v", wait, err)
			}
			waits++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	most := crypto.ClaimsAtOnce + int(time.Since(began)/crypto.ClaimsEvery) + 1
	if taken := full - left(); taken > most || taken < crypto.ClaimsAtOnce || taken+waits != ghosts {
		t.Errorf("%d keys were taken of at most %d, %d messages wait", taken, most, waits)
	}
}

func TestClaims_ProcessThatEndsAgainAndAgain_DrainsNobody(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	const starts, each = 6, 8
	var names []id.UserID
	for n := range starts * each {
		names = append(names, w.ghost(fmt.Sprintf("g%d", n)))
	}
	room := w.room(names...)
	for _, ghost := range names {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	before, began := w.requests("/keys/claim"), time.Now()
	for n := range starts {
		w.with(func(*crypto.Options) {})
		for _, ghost := range names[n*each : (n+1)*each] {
			if _, err := w.seal(ghost, room, "x"); err != nil && !errors.Is(err, crypto.ErrClaims) {
				t.Fatal(err)
			}
		}
	}
	most := crypto.ClaimsAtOnce + int(time.Since(began)/crypto.ClaimsEvery) + 1
	if n := w.requests("/keys/claim") - before; n > most || n < crypto.ClaimsAtOnce-1 {
		t.Errorf("%d claims in %d starts, and %d are as many as one process may make", n, starts, most)
	}
}

func TestClaims_Bucket_FillsWithTime(t *testing.T) {
	var c crypto.Claims
	now := time.Now()
	devices := []id.SigningKey{"a", "b"}
	for range crypto.ClaimsAtOnce {
		if wait := c.Take(devices, now); wait != 0 {
			t.Fatal(wait)
		}
	}
	if wait := c.Take([]id.SigningKey{"c", "b"}, now); wait <= 0 || wait > crypto.ClaimsEvery {
		t.Error(wait)
	}
	if wait := c.Take([]id.SigningKey{"c"}, now); wait != 0 {
		t.Error("a refusal has cost another device a key")
	}
	if wait := c.Take(devices, now.Add(crypto.ClaimsEvery)); wait != 0 {
		t.Error(wait)
	}
	if wait := c.Take(devices, now.Add(crypto.ClaimsEvery)); wait == 0 {
		t.Error("one in a while became two")
	}
	if c.Take([]id.SigningKey{"d"}, now.Add(time.Hour)); c.Kept() != 1 {
		t.Errorf("%d full buckets are kept", c.Kept())
	}
}

func TestClaims_ManyWait_EachHasATurnOfItsOwnAndNoneWaitsForEver(t *testing.T) {
	var c crypto.Claims
	now := time.Now()
	device := []id.SigningKey{"a"}
	for range crypto.ClaimsAtOnce {
		c.Take(device, now)
	}
	const waiting = 500
	turns, together := map[time.Duration]int{}, 0
	for range waiting {
		wait := c.Take(device, now)
		turns[wait]++
		if wait == crypto.ClaimsLongest {
			together++
		}
		if wait <= 0 || wait > crypto.ClaimsLongest {
			t.Fatal(wait)
		}
	}
	if distinct := int(crypto.ClaimsLongest / crypto.ClaimsEvery); len(turns) != distinct || together != waiting-distinct+1 {
		t.Errorf("%d turns for %d, and %d of them together at the end", len(turns), waiting, together)
	}
	late := now.Add(crypto.ClaimsLongest)
	if wait := c.Take(device, late); wait != 0 {
		t.Errorf("nobody came back, and the next waits %s", wait)
	}
}

// All devices of a member have one Ed25519 key, as no client makes them. They are no reason for others to wait.
func TestClaims_ManyDevicesWithOneSigningKey_HoldUpNobody(t *testing.T) {
	w := newWorld(t)
	w.with(func(o *crypto.Options) { o.Send = crypto.TrustCrossSigned })
	ghosts := []id.UserID{w.ghost("g0"), w.ghost("g1"), w.ghost("g2")}
	room := w.room(ghosts...)
	w.alice.signs()
	one := w.alice.again()
	devices := map[string]any{}
	for n := range 3 * crypto.ClaimsAtOnce {
		name, curve := id.DeviceID(fmt.Sprintf("D%02d", n)), w.alice.again().olm.GetAccount().IdentityKey()
		keys := one.own(func(keys *mautrix.DeviceKeys) {
			keys.DeviceID = name
			keys.Keys = map[id.DeviceKeyID]string{
				id.NewDeviceKeyID(id.KeyAlgorithmCurve25519, name): curve.String(),
				id.NewDeviceKeyID(id.KeyAlgorithmEd25519, name):    one.olm.GetAccount().SigningKey().String(),
			}
		})
		w.alice.sign(keys)
		devices[string(name)] = keys
	}
	for _, ghost := range ghosts {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	defer w.alice.answers(devices, func(fields) {})()
	for _, ghost := range ghosts {
		if _, err := w.seal(ghost, room, "x"); err != nil {
			t.Errorf("%s is to wait %s: %v", ghost, appservice.LaterWait(err), err)
		}
	}
	if n := w.count(`SELECT COUNT(*) FROM crypto_device WHERE user_id = $1 AND deleted = false`, w.alice.ID()); n != len(devices) {
		t.Fatalf("%d devices are known: this shows nothing", n)
	}
}

// A device that never has a one-time key costs a turn with each new room key of each ghost. It is no reason for others to wait.
func TestClaims_DeviceThatHasNoKeys_HoldsUpNobody(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	mallory := w.hs.User("mallory")
	var ghosts []id.UserID
	for n := range crypto.ClaimsAtOnce / 2 {
		ghosts = append(ghosts, w.ghost(fmt.Sprintf("g%d", n)))
	}
	room := w.room(ghosts...)
	_, err := mallory.Join(t.Context(), string(room))
	w.no(err)
	keyless := &person{User: mallory, w: w}
	keyless.client, err = mautrix.NewClient(w.hs.URL(), mallory.ID(), mallory.Token())
	w.no(err)
	keyless.client.DeviceID = mallory.DeviceID()
	keyless.olm = keyless.again().olm
	_, err = keyless.client.UploadKeys(t.Context(), &mautrix.ReqUploadKeys{DeviceKeys: keyless.own(func(*mautrix.DeviceKeys) {})})
	w.no(err)
	for _, ghost := range ghosts {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	for round := range 4 {
		w.changes(`DELETE FROM crypto_megolm_outbound_session`)
		for _, ghost := range ghosts {
			if _, err := w.seal(ghost, room, "x"); err != nil {
				t.Fatalf("round %d: %s is to wait %s: %v", round, ghost, appservice.LaterWait(err), err)
			}
		}
	}
	if n := w.count(`SELECT COUNT(*) FROM crypto_device WHERE user_id = $1`, mallory.ID()); n != 1 {
		t.Fatalf("%d devices of Mallory are known: this shows nothing", n)
	}
}

// Who has passed a device over gives it the next key, once it has some.
func TestClaims_DeviceThatIsPassedOver_ReadsOnceItHasKeys(t *testing.T) {
	w := newWorld(t)
	w.with(func(*crypto.Options) {})
	crypto.GiveAgainAfter(w.crypto, 400*time.Millisecond)
	ghosts := []id.UserID{w.ghost("g0"), w.ghost("g1")}
	room := w.room(ghosts...)
	for range 50 {
		w.claim(w.alice.ID(), w.alice.DeviceID()) // by somebody else
	}
	for _, ghost := range ghosts {
		w.no(w.crypto.Prepare(t.Context(), ghost))
	}
	for _, ghost := range ghosts {
		w.session(ghost, room)
	}
	w.no(w.alice.olm.ShareKeys(t.Context(), 0))
	time.Sleep(500 * time.Millisecond)
	for _, ghost := range ghosts {
		w.gives(ghost, room)
	}
}
