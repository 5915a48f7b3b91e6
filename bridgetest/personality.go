package bridgetest

import (
	"fmt"
	"net/http"
	"time"
)

// Personality is the kind of homeserver that a [Homeserver] behaves as. What each does differently is in docs/testing.md.
type Personality int

const (
	// Synapse is Synapse 1.160 with its own logins.
	Synapse Personality = iota
	// SynapseOAuth is Synapse 1.160 with logins delegated to an authentication service (MSC3861), which does not answer
	// here: only appservices, and the users that a test has logged in, get anywhere.
	SynapseOAuth
	// Dendrite is Dendrite 0.15.2.
	Dendrite
	// Continuwuity is Continuwuity 26.8; what is known of it was read, not measured.
	Continuwuity
	// Tuwunel is Tuwunel 1.9; what is known of it was read, not measured.
	Tuwunel
)

// Personalities are all that there are, for tests that are to hold on each.
func Personalities() []Personality {
	return []Personality{Synapse, SynapseOAuth, Dendrite, Continuwuity, Tuwunel}
}

// String is the name, such as "SynapseOAuth".
func (p Personality) String() string {
	if p < 0 || int(p) >= len(personalities) {
		return fmt.Sprintf("Personality(%d)", int(p))
	}
	return p.traits().name
}

// family groups the servers that have their code in common.
type family int

const (
	synapse family = iota
	dendrite
	conduit // Continuwuity and Tuwunel
)

// traits are what of a personality can be said in a word. What cannot is where the family is asked for.
type traits struct {
	name   string
	family family
	// What it says that it is (GET /_matrix/federation/v1/version).
	program, version string

	server string // header Server of answers
	agent  string // header User-Agent of requests to appservices; empty: Go's own, which is Dendrite's too

	// What it sends.
	batch      int           // how many events, ephemeral events and to-device messages fit into a transaction, each
	backoff    int           // exponent of the longest pause between two tries; 0: no try without a new event
	timeout    time.Duration // until the headers of an answer
	keepAlive  bool
	only200    bool // other 2xx are failures
	needsJSON  bool // as are answers with no JSON in them
	queryToken bool // the hs_token is in the query too, as it is
	asksUsers  bool // GET /users/{ghost} before an event of a ghost that is not registered
	ephemeral  bool // typing, receipts, presence
	toDevice   bool
	extensions bool // MSC3202
	oldCopies  bool // events have copies of age, prev_content and others at their top, and user_id
	pingWakes  bool // a good ping makes a waiting transaction go at once

	// What it answers.
	createdStatus int      // of a device PUT that made a device; 0: it makes none
	lacks         []string // endpoints, as in the route table
	legacyMedia   bool     // media is served without authentication
	profileFields bool     // MSC4133
	homeServer    bool     // register and login answer with home_server
}

var personalities = [...]traits{
	Synapse: {
		name: "Synapse", program: "Synapse", version: "1.160.0", server: serverName, agent: serverName,
		batch: 100, backoff: 9, timeout: time.Minute, keepAlive: true, needsJSON: true, asksUsers: true, ephemeral: true, toDevice: true,
		extensions: true, oldCopies: true, pingWakes: true,
		createdStatus: 201, profileFields: true, homeServer: true,
	},
	SynapseOAuth: {
		name: "SynapseOAuth", program: "Synapse", version: "1.160.0", server: serverName, agent: serverName,
		batch: 100, backoff: 9, timeout: time.Minute, keepAlive: true, needsJSON: true, asksUsers: true, ephemeral: true, toDevice: true,
		extensions: true, oldCopies: true, pingWakes: true,
		createdStatus: 201, profileFields: true,
		lacks: []string{"login", "refresh", "logout", "delete_devices"},
	},
	Dendrite: {
		name: "Dendrite", program: "Dendrite", version: "0.15.2", family: dendrite,
		batch: 50, backoff: 6, timeout: 30 * time.Second, only200: true, asksUsers: true,
		legacyMedia: true,
		lacks: []string{
			"/_matrix/client/v1/appservice/{id}/ping", "/_matrix/media/v1/create", "/_matrix/media/v3/upload/{server}/{media}", "refresh",
			"/_matrix/client/v1/room_summary/{room}", "/_matrix/client/unstable/im.nheko.summary/rooms/{room}/summary",
		},
	},
	Continuwuity: {
		name: "Continuwuity", program: "continuwuity", version: "26.8", family: conduit, agent: "Continuwuity/26.8",
		batch: 48, timeout: 35 * time.Second, keepAlive: true, queryToken: true,
		createdStatus: 200, profileFields: true,
	},
	Tuwunel: {
		name: "Tuwunel", program: "Tuwunel", version: "1.9", family: conduit, agent: "Tuwunel/1.9",
		batch: 48, timeout: 35 * time.Second, keepAlive: true, queryToken: true, ephemeral: true, toDevice: true, extensions: true,
		pingWakes: true, createdStatus: 200, profileFields: true,
	},
}

// sign sets the header by which a server tells what it is; Dendrite, Continuwuity and Tuwunel have none.
func (t *traits) sign(h http.Header) {
	if t.server != "" {
		h.Set("Server", t.server)
	}
}

func (p Personality) traits() *traits { return &personalities[p] }
