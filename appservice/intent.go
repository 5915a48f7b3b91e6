package appservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/trestle-bridge/trestle/store"
)

// Intent acts as one ghost or as the bot. What an act needs is done first, once, and remembered in the store: the user
// is registered, has a device, is in the room. Concurrent calls share that work. Requests are not repeated, except after
// a 429 where that is safe; the caller owns the policy.
type Intent struct {
	as    *AppService
	user  id.UserID
	known atomic.Pointer[store.Ghost] // as it is in the store; nil until it was read. What it points to is not changed.
	// unheard says that the homeserver cannot have heard of the device whose ID is in the store: it was made up here, and every
	// request that named it was refused for a rate limit. The user's lock guards it.
	unheard bool
	counted atomic.Pointer[string]    // the key counts that SyncKeys took in last
	own     atomic.Pointer[ownDevice] // the device that keys belong to where the bridge cannot act as devices; nil until it was read
}

// Bot returns the intent of the bridge's own user.
func (as *AppService) Bot() *Intent { return as.intent(as.botID) }

// Ghost returns the intent of a user in the bridge's namespace. Whether it is one shows when the intent is used.
func (as *AppService) Ghost(user id.UserID) *Intent { return as.intent(user) }

func (as *AppService) intent(user id.UserID) *Intent {
	return as.intents.of(user, func() *Intent { return &Intent{as: as, user: user} })
}

// UserID is whom the intent acts as.
func (i *Intent) UserID() id.UserID { return i.user }

// Whoami asks the homeserver whom it takes the bridge for: the bot, when tokens and server name are right.
func (as *AppService) Whoami(ctx context.Context) (id.UserID, error) {
	resp, err := as.Bot().client("").Whoami(ctx)
	if err != nil {
		return "", fmt.Errorf("whoami: %w", as.explain(err))
	}
	return resp.UserID, nil
}

// client makes a client for one request: it is small, and so no state is shared. Every request says which user it is
// for, the bot's as well; the device is named only where it matters (MSC4326).
func (i *Intent) client(device id.DeviceID) *mautrix.Client {
	return &mautrix.Client{
		HomeserverURL:         i.as.homeserver,
		UserID:                i.user,
		DeviceID:              device,
		AccessToken:           i.as.cfg.Registration.ASToken,
		UserAgent:             "Trestle",
		Client:                i.as.http,
		Log:                   zerolog.Nop(), // it would log what people write
		SetAppServiceUserID:   true,
		SetAppServiceDeviceID: device != "",
		IgnoreRateLimit:       true,
	}
}

// ghost gives what the store knows of the user. The result must be copied before it is changed.
func (i *Intent) ghost(ctx context.Context) (*store.Ghost, error) {
	if g := i.known.Load(); g != nil {
		return g, nil
	}
	g, err := i.as.store.Ghost(ctx, string(i.user))
	if errors.Is(err, store.ErrNotFound) {
		g = &store.Ghost{UserID: string(i.user)}
	} else if err != nil {
		return nil, fmt.Errorf("read what is known of %s: %w", i.user, err)
	}
	i.known.CompareAndSwap(nil, g)
	return i.known.Load(), nil
}

// update changes what is known of the user, in the store first. The caller holds the user's lock.
func (i *Intent) update(ctx context.Context, change func(g *store.Ghost)) error {
	g, err := i.ghost(ctx)
	if err != nil {
		return err
	}
	changed := *g
	change(&changed)
	if err := i.as.store.Commit(ctx, i.as.epoch, func(tx *store.Tx) error { return tx.PutGhost(&changed) }); err != nil {
		return fmt.Errorf("write what is known of %s: %w", i.user, err)
	}
	i.known.Store(&changed)
	return nil
}

func (i *Intent) lock(ctx context.Context) (unlock func(), err error) {
	return i.as.locks.Lock(ctx, string(i.user))
}

// EnsureRegistered makes the user exist. A user that the homeserver has already, because an answer was lost or the bridge's
// store was, is ours when it lets the bridge act as it. It fails for good for a user ID that breaks the grammar, is outside
// of the bridge's namespace, or is somebody else's.
func (i *Intent) EnsureRegistered(ctx context.Context) error {
	if g, err := i.ghost(ctx); err != nil || g.Registered {
		return err
	}
	unlock, err := i.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if g, err := i.ghost(ctx); err != nil || g.Registered {
		return err
	}
	if err := checkUserID(i.user, i.as.cfg.ServerName); err != nil {
		return Permanent(fmt.Errorf("register: %w", err))
	}
	if !i.as.isOwn(i.user) {
		return Permanent(fmt.Errorf("register %s: it is outside of the registration's namespaces", i.user))
	}
	if _, err := i.register(ctx); err != nil {
		return err
	}
	return i.update(ctx, func(g *store.Ghost) { g.Registered = true })
}

// register asks the homeserver to make the user, and says whether it was not there.
func (i *Intent) register(ctx context.Context) (made bool, err error) {
	localpart, _, _ := strings.Cut(string(i.user[1:]), ":")
	cli := i.client("")
	_, err = cli.MakeRequest(withRepeat(ctx), http.MethodPost, cli.BuildClientURL("v3", "register"), map[string]any{
		"type":          "m.login.application_service",
		"username":      localpart,
		"inhibit_login": true, // homeservers with OAuth refuse anything else
	}, nil)
	made = errorCode(err) != "M_USER_IN_USE"
	if err = i.isThere(ctx, err); err != nil {
		return false, fmt.Errorf("register %s: %w", i.user, i.as.explain(err))
	}
	return made, nil
}

// isThere looks at what came of a registration: after some refusals the user is there. That Synapse refuses an appservice
// login in a registration does not keep it from making the user (MSC4190).
func (i *Intent) isThere(ctx context.Context, refusal error) error {
	switch errorCode(refusal) {
	case "M_USER_IN_USE", "M_APPSERVICE_LOGIN_UNSUPPORTED", "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED":
	default:
		return refusal
	}
	me, err := i.client("").Whoami(ctx)
	switch {
	case err == nil && me.UserID == i.user:
		return nil
	case errorCode(refusal) != "M_USER_IN_USE":
		return refusal
	case isUnsupported(err): // it has no such question, and has reserved the name for the bridge
		return nil
	case err == nil:
		return Permanent(fmt.Errorf("the homeserver acts as %s instead (it ignores user_id): %w", me.UserID, refusal))
	case errorCode(err) == codeForbidden || errorCode(err) == "M_EXCLUSIVE":
		return Permanent(fmt.Errorf("the user is there, and is not the bridge's (%w): rename or remove it, or give the bridge another namespace: %w", err, refusal))
	}
	return fmt.Errorf("ask whether the user that is there is the bridge's: %w", err)
}

// registered runs a request that needs the user registered. A homeserver that has forgotten the user, because its database
// was put back to an older state, gets it registered again, once.
func (i *Intent) registered(ctx context.Context, request func() error) error {
	if err := i.EnsureRegistered(ctx); err != nil {
		return err
	}
	err := request()
	if errorCode(err) != codeForbidden {
		return err
	}
	if lost, lostErr := i.forgetLost(ctx); lostErr != nil {
		return fmt.Errorf("%w (after %v)", lostErr, err)
	} else if !lost {
		return err
	}
	i.as.log.Warn().Stringer("user_id", i.user).Msg("The homeserver no longer knows a ghost; it is registered again")
	if registerErr := i.EnsureRegistered(ctx); registerErr != nil {
		return fmt.Errorf("%w (after %v)", registerErr, err)
	}
	return request()
}

// forgetLost asks whoami, which the homeserver answers for every user that it has, and when it refuses forgets that the
// user was registered, and all that went with it.
func (i *Intent) forgetLost(ctx context.Context) (bool, error) {
	unlock, err := i.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	_, err = i.client("").Whoami(ctx)
	switch status := errorStatus(err); {
	case err == nil, status == http.StatusNotFound, status == http.StatusMethodNotAllowed: // or it does not know the question
		return false, nil
	case errorCode(err) != codeForbidden:
		return false, fmt.Errorf("ask whether %s is registered: %w", i.user, i.as.explain(err))
	}
	return true, i.update(ctx, func(g *store.Ghost) {
		g.Registered, g.DisplayName, g.AvatarURL = false, "", ""
		g.DeviceID, g.DeviceMade = "", false // keys belong to an ID: a device without them must not come back under it
	})
}

// SendMessage sends an event and returns its ID. content is anything that encodes to a JSON object. txnID must be the
// same when the same event is sent again, and different for all others of all ghosts: Synapse does not keep the
// transactions of ghosts apart.
func (i *Intent) SendMessage(ctx context.Context, room id.RoomID, evType event.Type, content any, txnID string) (id.EventID, error) {
	what := fmt.Sprintf("send %s to %s as %s", evType.Type, room, i.user)
	if txnID == "" {
		return "", fmt.Errorf("%s: the transaction ID is empty", what)
	}
	var resp *mautrix.RespSendEvent
	err := i.inRoom(ctx, room, func(cli *mautrix.Client) (err error) {
		resp, err = cli.SendMessageEvent(ctx, room, evType, content, mautrix.ReqSendEvent{TransactionID: txnID})
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, i.as.explain(err))
	}
	return resp.EventID, nil
}

// SendState sets a piece of a room's state and returns the ID of its event.
func (i *Intent) SendState(ctx context.Context, room id.RoomID, evType event.Type, stateKey string, content any) (id.EventID, error) {
	var resp *mautrix.RespSendEvent
	err := i.inRoom(ctx, room, func(cli *mautrix.Client) (err error) {
		resp, err = cli.SendStateEvent(ctx, room, evType, stateKey, content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("set %s in %s as %s: %w", evType.Type, room, i.user, i.as.explain(err))
	}
	return resp.EventID, nil
}

// Redact removes an event's content. For txnID see [Intent.SendMessage].
func (i *Intent) Redact(ctx context.Context, room id.RoomID, ev id.EventID, reason, txnID string) (id.EventID, error) {
	what := fmt.Sprintf("redact %s in %s as %s", ev, room, i.user)
	if txnID == "" {
		return "", fmt.Errorf("%s: the transaction ID is empty", what)
	}
	var resp *mautrix.RespSendEvent
	err := i.inRoom(ctx, room, func(cli *mautrix.Client) (err error) {
		resp, err = cli.RedactEvent(ctx, room, ev, mautrix.ReqRedact{Reason: reason, TxnID: txnID})
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, i.as.explain(err))
	}
	return resp.EventID, nil
}

// asksMembership asks the homeserver whether the user is in a room.
func (i *Intent) asksMembership(ctx context.Context, room id.RoomID) (bool, error) {
	var member event.MemberEventContent
	err := i.client("").StateEvent(ctx, room, event.StateMember, string(i.user), &member)
	return member.Membership == event.MembershipJoin, err
}

// inRoom runs a request that needs the user registered, in the room, and with its device. A user that was only thought to
// be in the room, is refused and is not in, is brought in and asks once more.
func (i *Intent) inRoom(ctx context.Context, room id.RoomID, request func(cli *mautrix.Client) error) error {
	remembered, err := i.isMember(ctx, room)
	if err != nil {
		return err
	}
	if !remembered {
		if err := i.EnsureJoined(ctx, room); err != nil {
			return err
		}
	}
	err = i.withDevice(ctx, request)
	if errorCode(err) != codeForbidden || !remembered {
		return err
	}
	// Perhaps the user is no longer in the room, and its member event is still under way or never came. Who is in the room was
	// refused for something else, such as too little power, and asks in vain again.
	if in, askErr := i.asksMembership(ctx, room); askErr == nil && in {
		return err
	}
	// What is returned below is not the refusal, which would count as one for good, but what kept it from being asked again.
	if forgetErr := i.setMember(ctx, room, i.user, ""); forgetErr != nil {
		return fmt.Errorf("%w (after %v)", forgetErr, err)
	}
	if joinErr := i.EnsureJoined(ctx, room); joinErr != nil {
		return fmt.Errorf("%w (after %v)", joinErr, err)
	}
	return i.withDevice(ctx, request)
}

// Explain is how errors of such a client are told: what they mean for the bridge, and without secrets.
func (as *AppService) Explain(err error) error { return as.explain(err) }

// Owns says whether a user is the bot or in the bridge's namespace.
func (as *AppService) Owns(user id.UserID) bool { return as.isOwn(user) }
