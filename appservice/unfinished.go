package appservice

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

var errNotYet = errors.New("not yet")

// Registration is written to a YAML file that the homeserver reads.
type Registration struct {
	ID              string `yaml:"id"`
	URL             string `yaml:"url"`
	ASToken         string `yaml:"as_token"`
	HSToken         string `yaml:"hs_token"`
	SenderLocalpart string `yaml:"sender_localpart"`
}

type GenerateOptions struct {
	ID, URL, Domain, SenderLocalpart, GhostPrefix string
	AliasPrefix                                   string // "" for none
	Protocols                                     []string
}

func LoadRegistration(path string) (*Registration, error)  { return nil, errNotYet }
func Generate(opts GenerateOptions) (*Registration, error) { return nil, errNotYet }
func (r *Registration) Save(path string) error             { return errNotYet }
func (e *Event) Decode() (*event.Event, error)             { return nil, errNotYet }
func (e *Event) Doubt(ctx context.Context) error           { return errNotYet }
func EscapeLocalpart(s string) string                      { return "" }
func UnescapeLocalpart(s string) (string, error)           { return "", errNotYet }

type AppService struct{}

func New(cfg Config) (*AppService, error)                               { return nil, errNotYet }
func (as *AppService) ServeHTTP(w http.ResponseWriter, r *http.Request) {}
func (as *AppService) Start(ctx context.Context) error                  { return errNotYet }
func (as *AppService) Stop(ctx context.Context) error                   { return errNotYet }
func (as *AppService) Ping(ctx context.Context) (time.Duration, error)  { return 0, errNotYet }
func (as *AppService) Ready() error                                     { return errNotYet }
func (as *AppService) Bot() *Intent                                     { return nil }
func (as *AppService) Ghost(user id.UserID) *Intent                     { return nil }
func (as *AppService) IsGhost(user id.UserID) bool                      { return false }
func (as *AppService) Whoami(ctx context.Context) (id.UserID, error)    { return "", errNotYet }

type Intent struct{}

func (i *Intent) UserID() id.UserID                                              { return "" }
func (i *Intent) EnsureRegistered(ctx context.Context) error                     { return errNotYet }
func (i *Intent) EnsureDevice(ctx context.Context) (id.DeviceID, error)          { return "", errNotYet }
func (i *Intent) EnsureJoined(ctx context.Context, room id.RoomID) error         { return errNotYet }
func (i *Intent) Leave(ctx context.Context, room id.RoomID, reason string) error { return errNotYet }
func (i *Intent) SetDisplayName(ctx context.Context, name string) error          { return errNotYet }
func (i *Intent) SendMessage(ctx context.Context, room id.RoomID, typ event.Type, content any, txnID string) (id.EventID, error) {
	return "", errNotYet
}
func (i *Intent) SendState(ctx context.Context, room id.RoomID, typ event.Type, stateKey string, content any) (id.EventID, error) {
	return "", errNotYet
}
func (i *Intent) Redact(ctx context.Context, room id.RoomID, ev id.EventID, reason, txnID string) (id.EventID, error) {
	return "", errNotYet
}
func (i *Intent) Typing(ctx context.Context, room id.RoomID, typing bool, timeout time.Duration) error {
	return errNotYet
}
func (i *Intent) Upload(ctx context.Context, r io.Reader, size int64, mime, name string) (id.ContentURI, error) {
	return id.ContentURI{}, errNotYet
}
func (i *Intent) Download(ctx context.Context, uri id.ContentURI) (*http.Response, error) {
	return nil, errNotYet
}
func (i *Intent) CreateRoom(ctx context.Context, req *mautrix.ReqCreateRoom) (id.RoomID, error) {
	return "", errNotYet
}
func (i *Intent) JoinByIDOrAlias(ctx context.Context, roomOrAlias string, via ...string) (id.RoomID, error) {
	return "", errNotYet
}
func (i *Intent) Invite(ctx context.Context, room id.RoomID, user id.UserID) error { return errNotYet }
func (i *Intent) Kick(ctx context.Context, room id.RoomID, user id.UserID, reason string) error {
	return errNotYet
}
func (i *Intent) State(ctx context.Context, room id.RoomID, typ event.Type, stateKey string, out any) error {
	return errNotYet
}
func (i *Intent) Members(ctx context.Context, room id.RoomID) (map[id.UserID]mautrix.JoinedMember, error) {
	return nil, errNotYet
}
func (i *Intent) Profile(ctx context.Context, user id.UserID) (*mautrix.RespUserProfile, error) {
	return nil, errNotYet
}
