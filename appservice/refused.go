package appservice

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"
)

// What an administrator of the homeserver has done to a user, or has to do. Each stands for its error codes, stable and
// unstable; errors.Is finds it in the error of every [Intent]. Those of a user are permanent in the sense of [IsPermanent]:
// what was to be done is not done later, what comes after is tried again.
var (
	// ErrSuspended: 403 M_USER_SUSPENDED (MSC3823). The user may still leave rooms and redact what it sent, and keeps its
	// device.
	ErrSuspended = errors.New("the homeserver has suspended this user: its administrator can take that back")
	// ErrLocked: 401 M_USER_LOCKED with soft_logout (MSC3939). The user keeps its device and tokens. What was refused is
	// asked again once in 5 minutes, by whatever wants it next; in between it is refused here.
	ErrLocked = errors.New("the homeserver has locked this user: its administrator can unlock it")
	// ErrDeactivated: 403 M_USER_DEACTIVATED. That is for good, but for an administrator who activates the user again.
	ErrDeactivated = errors.New("the homeserver has deactivated this user: its administrator can activate it again, or the bridge must use another name for it")
	// ErrServerLimit: 403 M_RESOURCE_LIMIT_EXCEEDED. It is not permanent: it ends when the administrator raises the limit, or
	// with the month.
	ErrServerLimit = errors.New("the homeserver is over its limit of users: its administrator must raise it (Synapse: max_mau_value, mau_appservice_trial_days)")
	// ErrToken: 401 M_UNKNOWN_TOKEN or M_MISSING_TOKEN. It is not permanent: it ends when both sides have the same registration.
	ErrToken = errors.New("the homeserver does not take the as_token; give it the same registration as the bridge, and restart it")
)

const (
	codeLocked      = "M_USER_LOCKED"
	lockedProbe     = 5 * time.Minute // how often something of a locked user is tried
	maxTroubles     = 10_000
	maxRefusalBytes = 64 << 10
)

// refusalOf gives the name that metrics have for an error code, and its sentinel, or nil.
func refusalOf(code string) (reason string, sentinel error) {
	switch code {
	case "M_USER_SUSPENDED", "ORG.MATRIX.MSC3823.USER_SUSPENDED":
		return "suspended", ErrSuspended
	case codeLocked, "ORG_MATRIX_MSC3939_USER_LOCKED":
		return "locked", ErrLocked
	case "M_USER_DEACTIVATED":
		return "deactivated", ErrDeactivated
	case "M_RESOURCE_LIMIT_EXCEEDED":
		return "server_limit", ErrServerLimit
	case "M_UNKNOWN_TOKEN", codeMissingToken:
		return "token", ErrToken
	}
	return "", nil
}

// explain puts words to errors that a person has to mend, and marks those that the caller decides on. What was explained
// stays as it is.
func (as *AppService) explain(err error) error {
	code := errorCode(err)
	if code == "" || IsPermanent(err) {
		return err
	}
	if code == "M_EXCLUSIVE" {
		return Permanent(fmt.Errorf("the homeserver does not count this user to the bridge; its copy of the registration must have the same namespaces: %w", err))
	}
	switch _, sentinel := refusalOf(code); sentinel {
	case nil:
		return err
	case ErrServerLimit, ErrToken:
		if errors.Is(err, sentinel) {
			return err
		}
		return fmt.Errorf("%w: %w", sentinel, err)
	default:
		return Permanent(fmt.Errorf("%w: %w", sentinel, err))
	}
}

// isRefusal says whether an error is about who makes a request, so that nothing changes when it is made in another way.
func isRefusal(err error) bool {
	_, sentinel := refusalOf(errorCode(err))
	return sentinel != nil
}

// troubles are what users were refused for the sake of who they are. Each is logged when it begins and when it has ended,
// and every refusal is counted. It knows a refusal by who was refused what (user "" for what concerns all): a suspended user may still do some things, and
// on Synapse a locked ghost everything but log in.
type troubles struct {
	log   zerolog.Logger
	count func(reason string)
	mu    sync.Mutex
	by    map[troubleKey]trouble
}

type troubleKey struct {
	user id.UserID
	act  string
}

type trouble struct {
	sentinel error
	next     time.Time // of a locked user: when it is tried again
}

func newTroubles(log zerolog.Logger, count func(reason string)) *troubles {
	return &troubles{log: log, count: count, by: make(map[troubleKey]trouble)}
}

// locked says whether a locked user is not to be tried now. Of those who ask when the time has come, one is let through.
func (t *troubles) locked(user id.UserID, act string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := troubleKey{user, act}
	is, known := t.by[key]
	if !known || is.sentinel != ErrLocked {
		return false
	}
	if now := time.Now(); !now.Before(is.next) {
		is.next = now.Add(lockedProbe)
		t.by[key] = is
		return false
	}
	return true
}

// refused notes what a homeserver answered that is not a success.
func (t *troubles) refused(user id.UserID, act, code string) {
	reason, sentinel := refusalOf(code)
	if sentinel == nil {
		return
	}
	t.count(reason)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.by) >= maxTroubles {
		clear(t.by)
	}
	whose := user
	if !ofUser(sentinel) {
		whose = ""
	}
	first := true
	for key, is := range t.by {
		if is.sentinel == sentinel && key.user == whose {
			first = false
			break
		}
	}
	t.by[troubleKey{whose, act}] = trouble{sentinel, time.Now().Add(lockedProbe)}
	if first {
		t.log.Error().Stringer("user_id", user).Str("code", code).Str("act", act).Err(sentinel).Msg("The homeserver refuses what a user of the bridge does")
	}
}

// worked notes that a user was let do something.
func (t *troubles) worked(user id.UserID, act string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.by) == 0 {
		return
	}
	for _, key := range []troubleKey{{user, act}, {"", act}} {
		if is, known := t.by[key]; known {
			delete(t.by, key)
			t.log.Info().Stringer("user_id", user).Str("act", act).AnErr("was", is.sentinel).Msg("A homeserver's refusal has ended")
		}
	}
}

// ofUser says whether a refusal is about one user, and not about the whole bridge.
func ofUser(sentinel error) bool { return sentinel != ErrServerLimit && sentinel != ErrToken }

// lockedAnswer is what a homeserver answers for a locked user.
func lockedAnswer(req *http.Request) *http.Response {
	return ownAnswer(req, http.StatusUnauthorized, map[string]any{
		"errcode": codeLocked, "error": "refused by the bridge: the homeserver was asked less than five minutes ago", "soft_logout": true,
	})
}
