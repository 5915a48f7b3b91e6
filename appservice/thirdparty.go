package appservice

import (
	"context"
	"net/http"

	"maunium.net/go/mautrix/id"
)

// Protocol describes a network to clients that let people search it (client-server API, "Third-party Lookups").
type Protocol struct {
	// UserFields and LocationFields name what people and rooms are searched by, the widest first: network, nick.
	UserFields     []string `json:"user_fields"`
	LocationFields []string `json:"location_fields"`
	// Icon is an mxc:// URI; empty when the network has no icon.
	Icon string `json:"icon"`
	// FieldTypes says, for each of the fields, what a value looks like.
	FieldTypes map[string]FieldType `json:"field_types"`
	// Instances are the single networks behind the protocol.
	Instances []ProtocolInstance `json:"instances"`
}

// FieldType is what values of a field look like.
type FieldType struct {
	Regexp      string `json:"regexp"`      // of the whole value
	Placeholder string `json:"placeholder"` // an example, shown where nothing was written yet
}

// ProtocolInstance is one network of a protocol.
type ProtocolInstance struct {
	Desc      string            `json:"desc"`           // its name for people
	Icon      string            `json:"icon,omitempty"` // mxc://, instead of the protocol's
	Fields    map[string]string `json:"fields"`         // what a search of this network has filled in already
	NetworkID string            `json:"network_id"`     // unique among the instances
}

// ThirdPartyUser is the Matrix user that somebody on the network is.
type ThirdPartyUser struct {
	UserID   id.UserID         `json:"userid"`
	Protocol string            `json:"protocol"`
	Fields   map[string]string `json:"fields"`
}

// ThirdPartyLocation is the room that a channel of the network is.
type ThirdPartyLocation struct {
	Alias    id.RoomAlias      `json:"alias"`
	Protocol string            `json:"protocol"`
	Fields   map[string]string `json:"fields"`
}

// ThirdPartyHandler is an optional interface of a [Handler]: it answers when people search the network (Application Service
// API, "Third-party networks"). A homeserver asks only for protocols that the registration lists, Synapse keeps what it
// was told of a protocol for an hour. Every method has until Config.QueryTimeout. An error is logged, and the homeserver
// is told that it could not be found out; what is not there is no error but an empty list.
type ThirdPartyHandler interface {
	// LookUpProtocol describes a protocol; nil when the bridge does not have it.
	LookUpProtocol(ctx context.Context, protocol string) (*Protocol, error)
	// LookUpUsers finds users by fields, of which there may be none.
	LookUpUsers(ctx context.Context, protocol string, fields map[string]string) ([]ThirdPartyUser, error)
	// LookUpUser says who a Matrix user is on the network.
	LookUpUser(ctx context.Context, user id.UserID) ([]ThirdPartyUser, error)
	// LookUpLocations finds rooms by fields.
	LookUpLocations(ctx context.Context, protocol string, fields map[string]string) ([]ThirdPartyLocation, error)
	// LookUpLocation says which channel a room is, by the room's alias.
	LookUpLocation(ctx context.Context, alias id.RoomAlias) ([]ThirdPartyLocation, error)
}

// thirdParty gives the handler that can be asked, or answers that there is none.
func (as *AppService) thirdParty(w http.ResponseWriter) ThirdPartyHandler {
	h, ok := as.cfg.Handler.(ThirdPartyHandler)
	if !ok {
		answerError(w, http.StatusNotFound, codeNotFound, "this bridge offers no third-party lookups")
		return nil
	}
	return h
}

func (as *AppService) getProtocol(w http.ResponseWriter, r *http.Request) {
	const kind = "protocol"
	h := as.thirdParty(w)
	if h == nil {
		return
	}
	var p *Protocol
	name, ok := pathName(r, "protocol")
	if ok {
		p, ok = ask(as, w, r, kind, name, func(ctx context.Context) (*Protocol, error) { return h.LookUpProtocol(ctx, name) })
		if !ok {
			return
		}
	}
	as.metrics.found(kind, p != nil)
	if p == nil {
		answerNoProtocol(w)
		return
	}
	answerJSON(w, p.complete())
}

func answerNoProtocol(w http.ResponseWriter) {
	answerError(w, http.StatusNotFound, codeNotFound, "this bridge has no such protocol")
}

// complete writes out what clients take for granted: lists that are empty, and not missing.
func (p *Protocol) complete() *Protocol {
	out := *p
	if out.UserFields == nil {
		out.UserFields = []string{}
	}
	if out.LocationFields == nil {
		out.LocationFields = []string{}
	}
	if out.FieldTypes == nil {
		out.FieldTypes = map[string]FieldType{}
	}
	out.Instances = make([]ProtocolInstance, len(p.Instances))
	for i, instance := range p.Instances {
		if instance.Fields == nil {
			instance.Fields = map[string]string{}
		}
		out.Instances[i] = instance
	}
	return &out
}

func (as *AppService) getThirdPartyUsers(w http.ResponseWriter, r *http.Request) {
	if h := as.thirdParty(w); h != nil {
		search(as, w, r, "third_party_user", h, h.LookUpUsers)
	}
}

func (as *AppService) getThirdPartyLocations(w http.ResponseWriter, r *http.Request) {
	if h := as.thirdParty(w); h != nil {
		search(as, w, r, "third_party_location", h, h.LookUpLocations)
	}
}

// search looks for what has the fields that the query names, if the path names a protocol that there is.
func search[T any](as *AppService, w http.ResponseWriter, r *http.Request, kind string, h ThirdPartyHandler, look func(ctx context.Context, protocol string, fields map[string]string) ([]T, error)) {
	name, ok := pathName(r, "protocol")
	if !ok {
		answerNoProtocol(w)
		return
	}
	answerFound(as, w, r, kind, name, func(ctx context.Context) (*[]T, error) {
		if p, err := h.LookUpProtocol(ctx, name); err != nil || p == nil {
			return nil, err
		}
		list, err := look(ctx, name, searchFields(r))
		return &list, err
	})
}

func (as *AppService) getThirdPartyUser(w http.ResponseWriter, r *http.Request) {
	if h := as.thirdParty(w); h != nil {
		lookUp(as, w, r, "third_party_user", "userid", h.LookUpUser)
	}
}

func (as *AppService) getThirdPartyLocation(w http.ResponseWriter, r *http.Request) {
	if h := as.thirdParty(w); h != nil {
		lookUp(as, w, r, "third_party_location", "alias", h.LookUpLocation)
	}
}

// lookUp is the other direction: what a Matrix ID is on the network.
func lookUp[ID ~string, T any](as *AppService, w http.ResponseWriter, r *http.Request, kind, parameter string, look func(ctx context.Context, name ID) ([]T, error)) {
	name := r.URL.Query().Get(parameter)
	if !isName(name) {
		answerError(w, http.StatusBadRequest, codeMissingParam, "the parameter "+parameter+" is missing, or is no ID")
		return
	}
	answerFound(as, w, r, kind, name, func(ctx context.Context) (*[]T, error) {
		list, err := look(ctx, ID(name))
		return &list, err
	})
}

// answerFound answers with what the handler finds: a list, also when there is nothing in it. No list at all means that
// there is no such protocol.
func answerFound[T any](as *AppService, w http.ResponseWriter, r *http.Request, kind, about string, look func(ctx context.Context) (*[]T, error)) {
	found, ok := ask(as, w, r, kind, about, look)
	if !ok {
		return
	}
	as.metrics.found(kind, found != nil && len(*found) > 0)
	switch {
	case found == nil:
		answerNoProtocol(w)
	case *found == nil:
		answerJSON(w, []T{})
	default:
		answerJSON(w, *found)
	}
}

// searchFields are the query's parameters: the first value of each. The token that some homeservers put among them is
// nothing to search by.
func searchFields(r *http.Request) map[string]string {
	fields := map[string]string{}
	for name, values := range r.URL.Query() {
		if name != "access_token" && len(values) > 0 {
			fields[name] = values[0]
		}
	}
	return fields
}
