//go:build goolm

package crypto_test

import (
	"errors"
	"strings"
	"testing"

	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/crypto"
)

// Whoever is in a room can encrypt in it what he likes. An error that is not one of the event's own would hold up the room for a day.
func TestOpen_WhatWasEncryptedIsNoEvent_IsRefused_AndTheNextIsRead(t *testing.T) {
	w, bot, room, h := prepared(t)
	key := w.roomKey(room)
	w.no(w.crypto.HandleKeys(t.Context(), h.encrypt(h.payload(key))))
	in := `"room_id":"` + string(room) + `"`
	for n, plain := range []string{
		`null`, `[]`, `7`, `"text"`, ` `, `{`, `{}`, "\x00", `{"room_id":null}`, `{` + in + `,"type":7,"content":{}}`, `{` + in + `,"type":null,"content":null}`,
		`{` + in + `,"type":"m.room.message","content":null}`, `{` + in + `,"type":"m.room.message","content":[]}`,
		`{` + in + `,"type":"m.room.message","content":{"msgtype":7}}`, `{` + in + `,"type":"m.room.message","content":` + strings.Repeat("[", 20_000),
		`{` + in + `,"type":"m.room.message","content":{"m.relates_to":null,"m.new_content":null}}`,
	} {
		for _, relation := range []any{nil, fields{"rel_type": "m.replace", "event_id": "$x"}, "text"} {
			ciphertext, err := key.Encrypt([]byte(plain))
			w.no(err)
			content := fields{"algorithm": id.AlgorithmMegolmV1, "session_id": key.ID(), "ciphertext": string(ciphertext)}
			if relation != nil {
				content["m.relates_to"] = relation
			}
			if _, err := w.crypto.Open(t.Context(), w.alice.encryptedEvent(room, "$"+strings.Repeat("n", n+1)+string(ciphertext[60:70]), content), bot); err != nil && !errors.Is(err, crypto.ErrCorrupt) {
				t.Errorf("%.60q with relation %v: got %.200v, want ErrCorrupt", plain, relation, err)
			}
		}
	}
	if opened, err := w.crypto.Open(t.Context(), w.alice.sealedWith(key, "$next", "next"), bot); err != nil || text(opened) != "next" {
		t.Errorf("%q, %v", text(opened), err)
	}
}
