package bridge

import (
	"fmt"
	"strings"
)

// brand is a homeserver's program, as far as its administrator has to do other things than another one's.
type brand string

const (
	brandUnknown      brand = ""
	brandSynapse      brand = "Synapse"
	brandDendrite     brand = "Dendrite"
	brandContinuwuity brand = "Continuwuity"
	brandTuwunel      brand = "Tuwunel"
)

// brandOf knows a homeserver by what it calls itself: the name in its answers, or its Server header ("Synapse/1.160.0").
func brandOf(name string) brand {
	name, _, _ = strings.Cut(name, "/")
	for _, b := range []brand{brandSynapse, brandDendrite, brandContinuwuity, brandTuwunel} {
		if strings.EqualFold(strings.TrimSpace(name), string(b)) {
			return b
		}
	}
	return brandUnknown
}

// String is a name for sentences.
func (b brand) String() string {
	if b == brandUnknown {
		return "the homeserver"
	}
	return string(b)
}

const adminRoom = "in the admin room, write !admin appservices "

// register says how the homeserver is told of a registration that it does not have, or has an older copy of.
func (b brand) register(path string) string {
	switch b {
	case brandSynapse:
		return "name " + path + " in app_service_config_files of homeserver.yaml, and restart Synapse, which reads it only then"
	case brandDendrite:
		return "name " + path + " in app_service_api.config_files of dendrite.yaml, and restart Dendrite, which reads it only then"
	case brandContinuwuity:
		return adminRoom + "register and below it, as a code block, what is in " + path + "; it takes the place of an older one with this id"
	case brandTuwunel:
		return adminRoom + "register and below it, as a code block, what is in " + path +
			"; or put the file into the folder that appservice_dir of tuwunel.toml names, and restart Tuwunel"
	}
	return "name " + path + " in app_service_config_files of homeserver.yaml (Synapse) or app_service_api.config_files of dendrite.yaml (Dendrite) and restart the homeserver, " +
		"or register it with !admin appservices register in the admin room (Continuwuity, Tuwunel)"
}

// unregister says how the homeserver is made to forget a registration.
func (b brand) unregister(id, path string) string {
	switch b {
	case brandSynapse:
		return "take " + path + " out of app_service_config_files in homeserver.yaml, and restart Synapse"
	case brandDendrite:
		return "take " + path + " out of app_service_api.config_files in dendrite.yaml, and restart Dendrite"
	case brandContinuwuity:
		return adminRoom + "unregister " + id
	case brandTuwunel:
		return adminRoom + "unregister " + id + "; or take the file out of the folder that appservice_dir of tuwunel.toml names, and restart Tuwunel"
	}
	return "take " + path + " out of the homeserver's configuration and restart it (Synapse, Dendrite), or write !admin appservices unregister " + id +
		" in the admin room (Continuwuity, Tuwunel)"
}

// reset says what brings the homeserver's copy of a registration up to date, and sets a key in it.
func (b brand) reset(key, path string) string {
	return fmt.Sprintf("look that %s says %s: true; then %s", path, key, b.register("it"))
}

// deactivate says how an administrator ends an account, which an appservice cannot.
func (b brand) deactivate() string {
	switch b {
	case brandSynapse:
		return "POST /_synapse/admin/v1/deactivate/USER with an administrator's token"
	case brandDendrite:
		return "there is no command for it; an account without devices and rooms does nothing"
	case brandContinuwuity, brandTuwunel:
		return "in the admin room, write !admin users deactivate USER"
	}
	return "the homeserver's administrator can"
}
