package appservice

import (
	"context"
	"net/http"
	"regexp"

	"maunium.net/go/mautrix/id"
)

// getUser answers whether a user exists (Application Service API, "Querying", GET /users/{userId}). Synapse asks before it
// hands on an invitation to a user that it does not have.
func (as *AppService) getUser(w http.ResponseWriter, r *http.Request) {
	as.exists(w, r, "userId", "user", func(ctx context.Context, name string) (bool, error) {
		return as.userExists(ctx, id.UserID(name))
	})
}

// getAlias answers whether an alias exists (GET /rooms/{roomAlias}).
func (as *AppService) getAlias(w http.ResponseWriter, r *http.Request) {
	as.exists(w, r, "alias", "alias", func(ctx context.Context, name string) (bool, error) {
		q, ok := as.cfg.Handler.(AliasQuerier)
		if !ok || !as.ownsAlias(id.RoomAlias(name)) {
			return false, nil
		}
		return q.QueryAlias(ctx, id.RoomAlias(name))
	})
}

func (as *AppService) exists(w http.ResponseWriter, r *http.Request, variable, what string, find func(ctx context.Context, name string) (bool, error)) {
	name, ok := pathName(r, variable)
	found := false
	if ok {
		found, ok = ask(as, w, r, what, name, func(ctx context.Context) (bool, error) { return find(ctx, name) })
		if !ok {
			return
		}
	}
	as.metrics.found(what, found)
	if found {
		answerOK(w)
		return
	}
	answerError(w, http.StatusNotFound, codeNotFound, "no such "+what)
}

// userExists makes a user exist that can. A user that was registered before and that the homeserver asks for all the same
// may be one that it has forgotten.
func (as *AppService) userExists(ctx context.Context, user id.UserID) (bool, error) {
	if !as.isOwn(user) || checkUserID(user, as.cfg.ServerName) != nil {
		return false, nil
	}
	intent := as.intent(user)
	g, err := intent.ghost(ctx)
	if err != nil {
		return false, err
	}
	if g.Registered {
		if lost, err := intent.forgetLost(ctx); err != nil || !lost {
			return err == nil, err
		}
	}
	if user != as.botID {
		q, ok := as.cfg.Handler.(UserQuerier)
		if !ok {
			return false, nil
		}
		if found, err := q.QueryUser(ctx, user); err != nil || !found {
			return false, err
		}
	}
	return true, intent.EnsureRegistered(ctx)
}

// ownsAlias says whether an alias is in the registration's namespaces.
func (as *AppService) ownsAlias(alias id.RoomAlias) bool {
	for _, re := range as.aliases {
		if re.MatchString(string(alias)) {
			return true
		}
	}
	return false
}

// compileNamespace makes a regular expression match as homeservers do: from the first character on.
func compileNamespace(ns Namespace) (*regexp.Regexp, error) {
	return regexp.Compile("^(?:" + ns.Regex + ")")
}
