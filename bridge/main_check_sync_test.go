//go:build goolm

package bridge_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/trestle-bridge/trestle/bridgetest"
)

// Synapse refuses /sync to the bot, so that its devices cannot make up for switches that are off.
func TestCheck_SynapseWhoseSwitchesAreOff_FailsAlsoWhereDevicesAsk(t *testing.T) {
	s := newSite(t, bridgetest.Options{NoToDevice: true, NoDeviceExtensions: true})
	s.patience = time.Millisecond
	text := must(os.ReadFile(s.config))(t)
	s.write(s.config, string(text)+"encryption: {mode: ghosts, sync: always}\n")
	s.tell()
	status, out := s.run("check")
	for _, finding := range []string{"FAIL  to-device ", "FAIL  device lists "} {
		if status != 1 || !strings.Contains(out, finding) {
			t.Errorf("status %d, and it does not say %q:\n%s", status, finding, out)
		}
	}
	s.clean()
}
