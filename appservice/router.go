package appservice

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/gorilla/mux"
	"maunium.net/go/mautrix/id"
)

// The Matrix error codes that this side answers with.
const (
	codeMissingToken = "M_MISSING_TOKEN"
	codeForbidden    = "M_FORBIDDEN"
	codeUnrecognized = "M_UNRECOGNIZED"
	codeNotFound     = "M_NOT_FOUND"
	codeTooLarge     = "M_TOO_LARGE"
	codeNotJSON      = "M_NOT_JSON"
	codeUnknown      = "M_UNKNOWN"
)

func (as *AppService) newRouter() http.Handler {
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	handle := func(path, method string, h http.HandlerFunc) {
		r.Handle("/_matrix/app/v1"+path, as.authenticated(h)).Methods(method)
	}
	handle("/transactions/{txnId}", http.MethodPut, as.putTransaction)
	handle("/ping", http.MethodPost, as.postPing)
	handle("/users/{userId}", http.MethodGet, as.getUser)
	handle("/rooms/{alias}", http.MethodGet, as.getAlias)
	for _, kind := range []string{"/thirdparty/protocol/{protocol}", "/thirdparty/user", "/thirdparty/user/{protocol}", "/thirdparty/location", "/thirdparty/location/{protocol}"} {
		handle(kind, http.MethodGet, thirdpartyNone)
	}
	if as.cfg.LegacyPaths {
		r.Handle("/transactions/{txnId}", as.authenticated(as.putTransaction)).Methods(http.MethodPut)
		r.Handle("/users/{userId}", as.authenticated(as.getUser)).Methods(http.MethodGet)
		r.Handle("/rooms/{alias}", as.authenticated(as.getAlias)).Methods(http.MethodGet)
	}
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerError(w, http.StatusNotFound, codeUnrecognized, "unrecognized request")
	})
	r.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerError(w, http.StatusMethodNotAllowed, codeUnrecognized, "unrecognized method for this path")
	})
	return r
}

// ServeHTTP serves the Application Service API.
func (as *AppService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	as.router.ServeHTTP(w, r)
}

// authenticated lets through what carries the hs_token.
func (as *AppService) authenticated(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var given []string
		if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
			given = append(given, strings.TrimSpace(token))
		}
		if as.cfg.AllowQueryToken {
			given = append(given, r.URL.Query()["access_token"]...)
		}
		if len(given) == 0 {
			answerError(w, http.StatusUnauthorized, codeMissingToken, "missing token")
			return
		}
		for _, token := range given { // each must be right, so both must agree
			if !as.isHSToken(token) {
				answerError(w, http.StatusForbidden, codeForbidden, "wrong token: the homeserver's hs_token differs from this bridge's; make both read the same registration")
				return
			}
		}
		next(w, r)
	})
}

// isHSToken compares hashes: neither the length nor the first difference shows in the time it takes.
func (as *AppService) isHSToken(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], as.hsTokenSum[:]) == 1
}

func (as *AppService) getUser(w http.ResponseWriter, r *http.Request) {
	q, ok := as.cfg.Handler.(UserQuerier)
	as.query(w, r, "userId", "user", func(ctx context.Context, name string) (bool, error) {
		if !ok || !as.IsGhost(id.UserID(name)) {
			return false, nil
		}
		return q.QueryUser(ctx, id.UserID(name))
	})
}

func (as *AppService) getAlias(w http.ResponseWriter, r *http.Request) {
	q, ok := as.cfg.Handler.(AliasQuerier)
	as.query(w, r, "alias", "alias", func(ctx context.Context, name string) (bool, error) {
		if !ok {
			return false, nil
		}
		return q.QueryAlias(ctx, id.RoomAlias(name))
	})
}

func (as *AppService) query(w http.ResponseWriter, r *http.Request, variable, what string, ask func(context.Context, string) (bool, error)) {
	name, err := url.PathUnescape(mux.Vars(r)[variable])
	if err != nil {
		answerError(w, http.StatusNotFound, codeNotFound, "no such "+what)
		return
	}
	found, err := ask(r.Context(), name)
	switch {
	case err != nil:
		as.log.Warn().Err(err).Str(what, name).Msg("A query of the homeserver could not be answered")
		answerError(w, http.StatusInternalServerError, codeUnknown, "the bridge could not find out")
	case found:
		answerOK(w)
	default:
		answerError(w, http.StatusNotFound, codeNotFound, "no such "+what)
	}
}

func thirdpartyNone(w http.ResponseWriter, _ *http.Request) {
	answerError(w, http.StatusNotFound, codeNotFound, "this bridge offers no third-party lookups")
}

// answerOK answers 200 with a JSON object: to Synapse an empty body is a failure.
func answerOK(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte("{}"))
}

func answerError(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"errcode": code, "error": text})
}
