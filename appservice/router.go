package appservice

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/gorilla/mux"
)

// The Matrix error codes that this side answers with.
const (
	codeMissingToken = "M_MISSING_TOKEN"
	codeMissingParam = "M_MISSING_PARAM"
	codeForbidden    = "M_FORBIDDEN"
	codeUnrecognized = "M_UNRECOGNIZED"
	codeNotFound     = "M_NOT_FOUND"
	codeTooLarge     = "M_TOO_LARGE"
	codeNotJSON      = "M_NOT_JSON"
	codeUnknown      = "M_UNKNOWN"
)

// The paths of the Application Service API, and those that came before them ("Legacy routes").
const (
	pathV1               = "/_matrix/app/v1"
	pathLegacy           = ""
	pathThirdParty       = "/_matrix/app/v1/thirdparty"
	pathThirdPartyLegacy = "/_matrix/app/unstable/thirdparty"
)

func (as *AppService) newRouter() http.Handler {
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	handle := func(method, path string, h http.HandlerFunc) {
		r.Handle(path, as.authenticated(h)).Methods(method)
		r.Handle(path, notAllowed(method)) // whatever is left of the path: every path has one method
	}
	endpoints, thirdParty := []string{pathV1}, []string{pathThirdParty}
	if as.cfg.LegacyPaths {
		endpoints, thirdParty = append(endpoints, pathLegacy), append(thirdParty, pathThirdPartyLegacy)
	}
	for _, prefix := range endpoints {
		handle(http.MethodPut, prefix+"/transactions/{txnId}", as.putTransaction)
		handle(http.MethodGet, prefix+"/users/{userId}", as.getUser)
		handle(http.MethodGet, prefix+"/rooms/{alias}", as.getAlias)
	}
	handle(http.MethodPost, pathV1+"/ping", as.postPing)
	for _, prefix := range thirdParty {
		handle(http.MethodGet, prefix+"/protocol/{protocol}", as.getProtocol)
		handle(http.MethodGet, prefix+"/user/{protocol}", as.getThirdPartyUsers)
		handle(http.MethodGet, prefix+"/user", as.getThirdPartyUser)
		handle(http.MethodGet, prefix+"/location/{protocol}", as.getThirdPartyLocations)
		handle(http.MethodGet, prefix+"/location", as.getThirdPartyLocation)
	}
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerError(w, http.StatusNotFound, codeUnrecognized, "unrecognized request")
	})
	return r
}

// notAllowed answers for a path that is known, and a method that it does not have.
func notAllowed(method string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", method)
		answerError(w, http.StatusMethodNotAllowed, codeUnrecognized, "unrecognized method for this path")
	})
}

// ServeHTTP serves the Application Service API.
func (as *AppService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	as.router.ServeHTTP(w, r)
}

// authenticated lets through what carries the hs_token.
func (as *AppService) authenticated(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var given []string
		for _, header := range r.Header.Values("Authorization") {
			if scheme, token, ok := strings.Cut(header, " "); ok && strings.EqualFold(scheme, "Bearer") {
				given = append(given, strings.TrimSpace(token))
			}
		}
		inQuery := r.URL.Query()["access_token"]
		if as.cfg.AllowQueryToken {
			given = append(given, inQuery...)
		}
		if len(given) == 0 {
			text := "missing token"
			if len(inQuery) > 0 {
				text = "missing token: this bridge takes it from the Authorization header only, unless its configuration allows the query token"
			}
			answerError(w, http.StatusUnauthorized, codeMissingToken, text)
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
