package bridge

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// The switches of Synapse that no endpoint tells of.
const (
	switchToDevice   = "msc2409_to_device_messages_enabled"
	switchExtensions = "msc3202_transaction_extensions"
)

// pushes finds out what the homeserver sends to the bridge beside events: the bot sends a message to its own device, which
// came into being a moment ago. The message shows what MSC2409 calls to-device, the device shows MSC3202.
func (h *homeserverProbe) pushes(ctx context.Context, f *findings, device string, works bool) {
	switch {
	case h.listener == nil:
		f.warn("to-device", "stop it and check again; or look yourself: "+h.switchOn(switchToDevice), "cannot be found out while the bridge runs, which gets what the homeserver sends")
		f.warn("device lists", "stop it and check again; or look yourself: "+h.switchOn(switchExtensions), "cannot be found out while the bridge runs, which gets what the homeserver sends")
		return
	case !h.reached:
		return // nothing comes, and ping has said why
	}
	var now heard
	if works {
		message := map[string]any{"messages": map[string]any{h.bot: map[string]any{device: map[string]string{"from": "check"}}}}
		answer, err := h.as(ctx, h.bot, http.MethodPut, "/_matrix/client/v3/sendToDevice/"+url.PathEscape(h.name)+"/"+h.name, "&device_id="+device, message)
		if err != nil || answer.status != http.StatusOK {
			f.warn("to-device", "", "the bot cannot send a message to its own device: %v", orError(answer, err))
			return
		}
		if now = h.await(ctx); ctx.Err() != nil {
			return // interrupted: nothing was found out
		}
	}
	h.reportPush(f, "to-device", now.toDevice, now, "messages between devices (MSC2409)", switchToDevice)
	h.reportPush(f, "device lists", now.extensions, now, "device lists and key counts (MSC3202)", switchExtensions)
}

func orError(answer *matrixAnswer, err error) any {
	if err != nil {
		return err
	}
	return answer
}

// await waits for the message. The transaction that it comes in has the bot's key counts, too, if the homeserver sends any.
func (h *homeserverProbe) await(ctx context.Context) heard {
	enough := time.NewTimer(h.patience)
	defer enough.Stop()
	for {
		now, changed := h.listener.state()
		if now.toDevice {
			return now
		}
		select {
		case <-changed:
			continue
		case <-enough.C:
		case <-ctx.Done():
		}
		return h.heard()
	}
}

func (h *homeserverProbe) reportPush(f *findings, about string, came bool, now heard, what, key string) {
	missing := f.warn
	// What the configuration asks for may not work. Synapse refuses /sync to the bot, so that devices which ask are no help there.
	if h.cfg.encrypts() && (h.cfg.Encryption.Sync != "always" || h.brand == brandSynapse) {
		missing = f.fail
	}
	switch {
	case came:
		f.ok(about, "the homeserver sends the bridge %s", what)
	case h.brand == brandDendrite, h.brand == brandContinuwuity:
		missing(about, "", "%v sends bridges no %s, and has no switch for it: encryption cannot work here", h.brand, what)
	case now.foreign && !now.toDevice && !now.extensions:
		f.warn(about, "start the bridge, and check again when it has been stopped; or look yourself: "+h.switchOn(key),
			"cannot be found out now: the homeserver has older events for the bridge, and leaves %s away until they are taken", what)
	case now.toDevice || now.extensions: // so it is not that it sends nothing
		missing(about, h.switchOn(key)+"; when that was done just now, start the bridge once and check after stopping it", "the homeserver does not send the bridge %s, which encryption needs", what)
	default:
		missing(about, h.switchOn(key)+"; when that is so already, start the bridge once, which makes the homeserver send again, and check after stopping it",
			"the homeserver did not send the bridge %s, which encryption needs", what)
	}
}

// switchOn says where what a homeserver sends is switched on.
func (h *homeserverProbe) switchOn(key string) string {
	registration := "receive_ephemeral"
	if key == switchExtensions {
		registration = "org.matrix.msc3202"
	}
	synapse := "write " + key + ": true under experimental_features in homeserver.yaml, and restart Synapse; " + registration + " in the registration that it reads must be true, too"
	switch h.brand {
	case brandSynapse:
		return synapse
	case brandDendrite, brandContinuwuity:
		return "there is no switch: " + h.brand.String() + " does not send them"
	case brandTuwunel:
		return h.brand.reset(registration, h.path())
	}
	return h.brand.reset(registration, h.path()) + "; Synapse: " + synapse
}
