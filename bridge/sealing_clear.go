package bridge

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/trestle-bridge/trestle/appservice"
)

// clearMember stays readable beside the ciphertext, as relations do: the ID of the outbox row, by which an event is found whose answer was lost.
const clearMember = "io.github.trestle-bridge.outbox"

// takeClear gives a content without what stays readable, and that; nil when there is nothing of it.
func takeClear(content json.RawMessage) (secret, clear json.RawMessage, err error) {
	if !bytes.Contains(content, []byte(clearMember)) {
		return content, nil, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil {
		return nil, nil, appservice.Permanent(fmt.Errorf("reading a stored message: %w", err))
	}
	clear = members[clearMember]
	delete(members, clearMember)
	return mustJSON(members), clear, nil
}

// putClear puts it beside the ciphertext.
func putClear(sealed, clear json.RawMessage) (json.RawMessage, error) {
	if clear == nil {
		return sealed, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(sealed, &members); err != nil {
		return nil, fmt.Errorf("reading a ciphertext: %w", err)
	}
	members[clearMember] = clear
	return mustJSON(members), nil
}
