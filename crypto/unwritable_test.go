//go:build goolm

package crypto_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	goolm "maunium.net/go/mautrix/crypto/goolm/session"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/appservice"
	"github.com/trestle-bridge/trestle/crypto"
)

// lowOrder are the points that give no secret, lowest byte first: 0, 1, two of order 8, 2^255-20 and two names of the first ones.
var lowOrder = []string{
	strings.Repeat("00", 32),
	"01" + strings.Repeat("00", 31),
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ec" + strings.Repeat("ff", 30) + "7f",
	"ed" + strings.Repeat("ff", 30) + "7f",
	"ee" + strings.Repeat("ff", 30) + "7f",
}

// journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func points(t *testing.T) (points [][]byte) {
	for _, text := range lowOrder {
		point, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, point)
	}
	return points
}

// One message of anybody would end what the bridge writes in a room: it is read, but nothing can be written with its session.
func TestOlm_MessageWhoseNextKeyGivesNoSecret_IsRefused_AndTheRoomIsWrittenTo(t *testing.T) {
	w, bot, room, _ := prepared(t)
	w.with(func(o *crypto.Options) { o.Send = crypto.TrustAny })
	for _, point := range points(t) {
		h := w.hand(w.alice, bot)
		h.session.(*goolm.OlmSession).Ratchet.SenderChains.RKey.PublicKey = slices.Clone(point)
		if err := w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room)))); !errors.Is(err, crypto.ErrCorrupt) || !appservice.IsPermanent(err) {
			t.Errorf("%x: got %v, want ErrCorrupt", point, err)
		}
		if n := w.count(`SELECT COUNT(*) FROM crypto_olm_session WHERE session_id = $1`, h.session.ID()); n != 0 {
			t.Errorf("%x: the session is kept", point)
		}
	}
	key := w.session(bot, room)
	if !w.alice.has(room, key) {
		t.Error("alice has no key of the room")
	}
}

func TestDevices_WhoseKeyGivesNoSecret_OrIsAnotherNameOfOne_AreLeftOutByThemselves(t *testing.T) {
	w, bot, room, _ := prepared(t)
	w.with(func(o *crypto.Options) { o.Send = crypto.TrustAny })
	other, err := hex.DecodeString("09" + strings.Repeat("00", 30) + "80") // nine, the base point, with the bit that counts for nothing
	w.no(err)
	for _, point := range append(points(t), other) {
		remove := w.alice.answers(map[string]any{"BAD": w.alice.made("BAD", false, func(keys *mautrix.DeviceKeys) {
			keys.Keys["curve25519:BAD"] = base64.RawStdEncoding.EncodeToString(point)
		}), "GOOD": w.alice.made("GOOD", false)}, func(fields) {})
		w.outdated(w.alice.ID())
		_, err := w.seal(bot, room, "x")
		w.no(err)
		remove()
		if n := w.count(`SELECT COUNT(*) FROM crypto_device WHERE device_id = 'BAD'`); n != 0 {
			t.Errorf("%x: the device is known", point)
		}
		if n := w.count(`SELECT COUNT(*) FROM crypto_device WHERE device_id = 'GOOD'`); n != 1 {
			t.Errorf("%x: the other device is not known", point)
		}
	}
}

// However it came there.
func TestShare_SessionThatCannotBeWrittenWith_LeavesItsDeviceOutAlone_NamedInTheLog_UntilItHasAnother(t *testing.T) {
	w, bot, room, h := prepared(t)
	var log journal
	w.with(func(o *crypto.Options) { o.Send, o.Log = crypto.TrustAny, zerolog.New(&log) })
	crypto.GiveAgainAfter(w.crypto, time.Second)
	bob := newPerson(w, "bob")
	_, err := bob.Join(t.Context(), string(room))
	w.no(err)
	w.settle()
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room)))))
	own := w.alice.olm.GetAccount().IdentityKey()
	w.no(crypto.Spoil(t.Context(), w.crypto, bot, own, true))

	var empty atomic.Bool
	w.hs.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/sendToDevice/") {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte(`"body":""`)) {
				empty.Store(true)
			}
		}
		return false
	})
	first := w.session(bot, room)
	if !bob.has(room, first) || w.alice.has(room, first) {
		t.Errorf("has bob the key: %t; alice: %t", bob.has(room, first), w.alice.has(room, first))
	}
	if n := strings.Count(log.String(), "is left out"); n != 1 || !strings.Contains(log.String(), string(w.alice.ID())) || !strings.Contains(log.String(), string(w.alice.DeviceID())) {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if empty.Load() {
		t.Error("alice is sent an empty message")
	}
	time.Sleep(1100 * time.Millisecond)
	second := w.session(bot, room)
	if second == first || !w.alice.has(room, second) {
		t.Errorf("alice has another session and is not given a key: %s, %s", first, second)
	}
}

// There is an older one, which the device may be given the next key over. That it has not been given this one is remembered all the same.
func TestShare_LatestOfTwoSessionsCannotBeWrittenWith_TheRoomGetsAnotherKeyForItsDevice(t *testing.T) {
	w, bot, room, h := prepared(t)
	w.with(func(o *crypto.Options) { o.Send = crypto.TrustAny })
	crypto.GiveAgainAfter(w.crypto, time.Second)
	w.settle()
	for _, h := range []*hand{h, w.hand(w.alice, bot)} {
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room)))))
	}
	own := w.alice.olm.GetAccount().IdentityKey()
	w.no(crypto.Spoil(t.Context(), w.crypto, bot, own, false))
	before, _ := w.sessions(own)
	first := w.session(bot, room)
	if after, _ := w.sessions(own); before < 2 || after != before-1 {
		t.Fatalf("of %d sessions %d are left, and this shows nothing", before, after)
	}
	time.Sleep(1100 * time.Millisecond)
	if second := w.session(bot, room); second == first {
		t.Error("the room goes on with a key that alice was not given")
	}
}

// panics is an Olm session that panics where it is to, as mautrix's do over keys that are none.
type panics struct {
	olm.Session
	inPickle bool
}

func (p *panics) Pickle(key []byte) ([]byte, error) {
	if p.inPickle {
		panic("in Pickle")
	}
	return p.Session.Pickle(key)
}

func (p *panics) Encrypt([]byte) (id.OlmMsgType, []byte, error) { panic("in Encrypt") }

func TestOlm_SessionThatPanics_IsOneThatCannotBeWrittenWith_HoweverOftenItIsHandedOut(t *testing.T) {
	w, bot, _, h := prepared(t)
	w.with(func(*crypto.Options) {})
	if err := crypto.CanWrite(h.session); err != nil {
		t.Errorf("a sound one: %v", err)
	}
	if err := crypto.CanWrite(&panics{h.session, true}); err == nil {
		t.Error("nothing is wrong with one that panics")
	}
	for handed := 1; handed <= 3; handed++ {
		session := w.hand(w.alice, bot).session
		if body, err, failed := crypto.WriteWith(session, handed); len(body) == 0 || err != nil || failed != nil {
			t.Errorf("a sound one: %q, %v, %v", body, err, failed)
		}
		if body, err, failed := crypto.WriteWith(&panics{session, false}, handed); len(body) != 0 || err != nil || failed == nil {
			t.Errorf("one that panics, handed out %d times: %q, %v, %v", handed, body, err, failed)
		}
	}
}

func TestMachine_Panic_IsAnErrorInTheLog_AndItsMemoryIsReadAnew(t *testing.T) {
	w, bot, room, h := prepared(t)
	var log journal
	w.with(func(o *crypto.Options) { o.Log = zerolog.New(&log) })
	for n := range 2 {
		w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(w.roomKey(room)))))
		inJob, inWork, kept := crypto.Panic(t.Context(), w.crypto, bot)
		if !errors.Is(inJob, crypto.ErrPanic) || !errors.Is(inWork, crypto.ErrPanic) {
			t.Errorf("%d: %v; %v", n, inJob, inWork)
		}
		for _, where := range []string{"in a job", "in its work"} {
			if !strings.Contains(log.String(), `"panic":"`+where+`"`) || !strings.Contains(log.String(), "crypto.Panic") {
				t.Errorf("%d: the log does not say where it was %s: %s", n, where, log.String())
			}
		}
		if kept {
			t.Errorf("%d: what panicked is still in memory", n)
		}
	}
}
