package bridge

import (
	"encoding/json"
	"testing"
)

func TestSealing_IDOfTheRow_StaysReadableAndOutOfTheCiphertext(t *testing.T) {
	secret, clear, err := takeClear(json.RawMessage(`{"` + clearMember + `":"txn","body":"<a>"}`))
	if err != nil || string(clear) != `"txn"` {
		t.Fatalf("readable stays %s: %v", clear, err)
	}
	var content map[string]any
	if err := json.Unmarshal(secret, &content); err != nil || len(content) != 1 || content["body"] != "<a>" {
		t.Errorf("encrypted is %s: %v", secret, err)
	}
	sealed, err := putClear(json.RawMessage(`{"ciphertext":"x"}`), clear)
	if want := `{"ciphertext":"x","` + clearMember + `":"txn"}`; err != nil || string(sealed) != want {
		t.Errorf("sent is %s, want %s: %v", sealed, want, err)
	}
}

func TestSealing_ContentWithoutAnID_StaysAsItIs(t *testing.T) {
	plain := json.RawMessage(`{"b":1,"a":{"x": 2}}`)
	secret, clear, err := takeClear(plain)
	if err != nil || clear != nil || string(secret) != string(plain) {
		t.Errorf("%s and %s: %v", secret, clear, err)
	}
	if sealed, err := putClear(json.RawMessage(`{"c": 1}`), clear); err != nil || string(sealed) != `{"c": 1}` {
		t.Errorf("%s: %v", sealed, err)
	}
}
