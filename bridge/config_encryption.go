package bridge

import (
	"strconv"
	"time"

	"github.com/trestle-bridge/trestle/crypto"
)

// EncryptionConfig is what the bridge does in encrypted rooms.
type EncryptionConfig struct {
	// Mode is "off" (nothing is read or said), "bot" (the bot's device reads, and encrypts for the ghosts) or "ghosts" (each ghost that speaks has keys
	// of its own). [Plumb.Encryption] has the last word for its room.
	Mode    string `yaml:"mode"`
	Send    string `yaml:"send"`    // whose devices are given keys: "cross-signed" or "any"
	Receive string `yaml:"receive"` // from whose devices messages are taken: the same
	// Hold is how long a message whose key has not come holds up its room, Patience how long it waits for its key then.
	Hold     time.Duration `yaml:"hold"`
	Patience time.Duration `yaml:"patience"`
	// Sync says whether devices with keys ask for what is sent to them with /sync: "always", "never", or "auto" where transactions do not bring it.
	Sync string `yaml:"sync"`
	// PickleKey is what keys are encrypted with in the database. Empty: with one that is kept in the database itself.
	PickleKey string `yaml:"pickle_key" secret:"true"`
}

const (
	modeOff    = "off"
	modeBot    = "bot"
	modeGhosts = "ghosts"
)

const syncAuto = "auto"

var syncs = map[string]crypto.SyncMode{syncAuto: crypto.SyncAuto, "always": crypto.SyncAlways, "never": crypto.SyncNever}

var trusts = map[string]crypto.Trust{"any": crypto.TrustAny, "cross-signed": crypto.TrustCrossSigned}

// defaultEncryption is off: encryption needs a program that was built with it and a homeserver whose switches for it are on, neither of which can be
// taken for granted, and a room in which the bridge says that it cannot read is better than one in which it seems to. Whom to trust by default is what
// today's clients do (MSC4153): devices that nobody has signed get no keys and are not believed.
func defaultEncryption() EncryptionConfig {
	return EncryptionConfig{Mode: modeOff, Send: "cross-signed", Receive: "cross-signed", Hold: 10 * time.Second, Patience: 15 * time.Minute, Sync: syncAuto}
}

// encrypts says whether there is any room that the bridge may take part in when it is encrypted.
func (c *Config) encrypts() bool {
	if c.Encryption.Mode != modeOff {
		return true
	}
	for _, p := range c.Bridge.Plumb {
		if p.Encryption != "" && p.Encryption != modeOff {
			return true
		}
	}
	return false
}

// minPickleKey is how many characters a pickle key has at least.
const minPickleKey = 16

func (d *decoder) checkEncryption(cfg *Config) {
	c := &cfg.Encryption
	oneOf(d, "encryption.mode", c.Mode, modeOff, modeBot, modeGhosts)
	oneOf(d, "encryption.send", c.Send, "cross-signed", "any")
	oneOf(d, "encryption.receive", c.Receive, "cross-signed", "any")
	within(d, "encryption.hold", c.Hold, 0, time.Minute)
	within(d, "encryption.patience", c.Patience, time.Minute, 30*24*time.Hour)
	oneOf(d, "encryption.sync", c.Sync, syncAuto, "always", "never")
	if n := len(c.PickleKey); n > 0 && n < minPickleKey && !d.isBad("encryption.pickle_key") {
		d.wrong("encryption.pickle_key", "is shorter than "+strconv.Itoa(minPickleKey)+" characters", "write a longer one, or leave it empty")
	}
	warnOfBot := func(path, mode string) {
		if mode == modeBot {
			d.warn(path, "is bot: clients that leave unverified devices out (MSC4153) do not show what ghosts say in encrypted rooms", "write ghosts")
		}
	}
	warnOfBot("encryption.mode", c.Mode)
	on := ""
	if c.Mode == modeBot || c.Mode == modeGhosts {
		on = "encryption.mode"
	}
	for i, p := range cfg.Bridge.Plumb {
		path := join(join("bridge.plumb", strconv.Itoa(i)), "encryption")
		if p.Encryption != "" {
			oneOf(d, path, p.Encryption, modeOff, modeBot, modeGhosts)
			warnOfBot(path, p.Encryption)
		}
		if on == "" && (p.Encryption == modeBot || p.Encryption == modeGhosts) {
			on = path
		}
	}
	switch {
	case on == "":
	case !hasOlm:
		d.wrong(on, d.quote(on)+" cannot be: this program was built without encryption", "build it with -tags goolm, or write off")
	case cfg.Appservice.DeviceMode == "none":
		d.wrong(on, d.quote(on)+" contradicts appservice.device_mode none: keys belong to a device", "write device_mode: auto, or off here")
	}
}
