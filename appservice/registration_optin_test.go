package appservice

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/trestle-bridge/trestle/store"
)

// generatedFields are the fields of a generated registration's file, as any homeserver's YAML reader sees them.
func generatedFields(t *testing.T) map[string]any {
	t.Helper()
	reg, err := Generate(example)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "registration.yaml")
	if err := reg.Save(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := yaml.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestA1_GeneratedRegistration_AsksForEphemeralEvents(t *testing.T) {
	fields := generatedFields(t)
	for name, want := range map[string]any{"receive_ephemeral": true, "rate_limited": false, "io.element.msc4190": true, "device_management": true} {
		if fields[name] != want { // the very type: "true" in quotes asks for nothing
			t.Errorf("%s is %#v, want %v", name, fields[name], want)
		}
	}
}

func TestA2_GeneratedRegistration_AsksUnderTheOldNameToo(t *testing.T) {
	if got := generatedFields(t)["de.sorunome.msc2409.push_ephemeral"]; got != true {
		t.Errorf("it is %#v", got)
	}
}

func TestA2_OnReading_EitherNameAloneOptsIn(t *testing.T) {
	const stable, old = "receive_ephemeral: true\n", "de.sorunome.msc2409.push_ephemeral: true\n"
	off := func(line string) string { return strings.Replace(line, "true", "false", 1) }
	text := generated(t)
	for _, c := range []struct {
		stable, old string
		want        bool
	}{
		{stable, old, true}, {stable, off(old), true}, {off(stable), old, true}, {stable, "", true}, {"", old, true},
		{off(stable), off(old), false}, {off(stable), "", false}, {"", off(old), false}, {"", "", false},
	} {
		changed := strings.Replace(strings.Replace(text, "\n"+stable, "\n"+c.stable, 1), "\n"+old, "\n"+c.old, 1)
		reg, err := ParseRegistration("r.yaml", []byte(changed))
		if err != nil {
			t.Fatalf("%q and %q: %v", c.stable, c.old, err)
		}
		if reg.ReceiveEphemeral != c.want {
			t.Errorf("%q and %q mean %v", c.stable, c.old, reg.ReceiveEphemeral)
		}
		if again, err := ParseRegistration("r.yaml", reg.YAML()); err != nil || again.ReceiveEphemeral != c.want {
			t.Errorf("%q and %q, written and read again: %v %v", c.stable, c.old, again, err)
		}
	}
}

func TestA2_RegistrationWithTheOldNameOnly_GetsItsEphemeralEvents(t *testing.T) {
	reg, err := ParseRegistration("r.yaml", []byte(strings.Replace(generated(t), "\nreceive_ephemeral: true\n", "\n", 1)))
	if err != nil {
		t.Fatal(err)
	}
	reg.HSToken, reg.Namespaces = testHSToken, testRegistration().Namespaces
	f := newFixture(t, nil, func(c *Config) { c.Registration = reg })
	f.mustPut("1", `{"events":[],"de.sorunome.msc2409.ephemeral":[`+typing("@a:x")+`]}`)
	if got := f.handedOver(); len(got) != 1 {
		t.Errorf("handed over %q", got)
	}
}

func TestK1_GeneratedRegistration_AsksForDeviceListsAndKeyCounts(t *testing.T) {
	fields := generatedFields(t)
	if fields["org.matrix.msc3202"] != true || fields["receive_ephemeral"] != true { // Synapse wants both
		t.Errorf("org.matrix.msc3202 is %#v, receive_ephemeral %#v", fields["org.matrix.msc3202"], fields["receive_ephemeral"])
	}
	for _, value := range []string{"true", "false"} {
		reg, err := ParseRegistration("r.yaml", []byte(strings.Replace(generated(t), "org.matrix.msc3202: true", "org.matrix.msc3202: "+value, 1)))
		if err != nil || reg.MSC3202 != (value == "true") {
			t.Errorf("%s is read as %+v %v", value, reg, err)
		}
	}
}

// Whatever was asked for, keys that come are taken: they are gone for good otherwise.
func TestK1_DeviceListsThatWereNotAskedFor_AreTaken(t *testing.T) {
	f := newFixture(t, nil, func(c *Config) { c.Registration.MSC3202 = false })
	f.mustPut("1", `{"device_lists":{"changed":["@bob:hs.test"]}}`)
	if got := f.rec.waitEvents(1); got[0].Kind != store.KindDeviceLists {
		t.Errorf("%+v", got[0])
	}
}
