package bridgetest

import (
	"slices"
	"strings"
)

// routeTable lists the endpoints. Paths are below /_matrix/client/v3 unless they begin with a slash. An empty part at
// the end stands for the empty state key.
func (hs *Homeserver) routeTable() []route {
	const v1 = "/_matrix/client/v1/"
	table := []struct {
		method, path string
		mode         mode
		serve        func(*call) (any, error)
	}{
		{"GET", "/_matrix/client/versions", open, hs.getVersions},
		{"GET", "/_matrix/federation/v1/version", open, hs.getServerVersion},
		{"GET", "capabilities", locked, hs.getCapabilities},
		{"GET", v1 + "auth_metadata", open, hs.getAuthMetadata},

		{"GET", "login", open, hs.getLogin},
		{"POST", "login", open, hs.postLogin},
		{"POST", "refresh", open, hs.postRefresh},
		{"POST", "logout", locked, hs.postLogout},
		{"POST", "register", open, hs.postRegister},
		{"GET", "account/whoami", locked, hs.getWhoami},
		{"POST", v1 + "appservice/{id}/ping", free, hs.postPing},

		{"GET", "devices", locked, hs.getDevices},
		{"GET", "devices/{device}", locked, hs.getDevice},
		{"PUT", "devices/{device}", locked, hs.putDevice},
		{"DELETE", "devices/{device}", locked, hs.deleteDevice},
		{"POST", "delete_devices", locked, hs.postDeleteDevices},

		{"GET", "profile/{user}", open, hs.getProfile},
		{"GET", "profile/{user}/{key}", open, hs.getProfileKey},
		{"PUT", "profile/{user}/{key}", locked, hs.putProfileKey},
		{"DELETE", "profile/{user}/{key}", locked, hs.deleteProfileKey},
		{"GET", "presence/{user}/status", locked, hs.getPresence},
		{"PUT", "presence/{user}/status", locked, hs.putPresence},
		{"GET", "user/{user}/account_data/{type}", locked, hs.getAccountData},
		{"PUT", "user/{user}/account_data/{type}", locked, hs.putAccountData},
		{"GET", "user/{user}/rooms/{room}/account_data/{type}", locked, hs.getAccountData},
		{"PUT", "user/{user}/rooms/{room}/account_data/{type}", locked, hs.putAccountData},
		{"POST", "user/{user}/filter", locked, hs.postFilter},
		{"GET", "user/{user}/filter/{filter}", locked, hs.getFilter},

		{"POST", "createRoom", locked, hs.postCreateRoom},
		{"POST", "join/{room}", free, hs.postJoin},
		{"POST", "rooms/{room}/join", free, hs.postJoin},
		{"POST", "rooms/{room}/leave", locked, hs.postLeave},
		{"POST", "rooms/{room}/forget", locked, hs.postForget},
		{"POST", "rooms/{room}/invite", locked, hs.postInvite},
		{"POST", "rooms/{room}/kick", locked, hs.postKick},
		{"POST", "rooms/{room}/ban", locked, hs.postBan},
		{"POST", "rooms/{room}/unban", locked, hs.postUnban},
		{"GET", "directory/room/{alias}", public, hs.getAlias},
		{"PUT", "directory/room/{alias}", locked, hs.putAlias},
		{"DELETE", "directory/room/{alias}", locked, hs.deleteAlias},
		{"GET", "rooms/{room}/aliases", locked, hs.getRoomAliases},
		{"GET", v1 + "room_summary/{room}", anyone, hs.getRoomSummary},
		{"GET", "/_matrix/client/unstable/im.nheko.summary/rooms/{room}/summary", anyone, hs.getRoomSummary},
		{"GET", "joined_rooms", locked, hs.getJoinedRooms},
		{"GET", "rooms/{room}/joined_members", locked, hs.getJoinedMembers},
		{"GET", "rooms/{room}/members", locked, hs.getMembers},

		{"GET", "rooms/{room}/state", locked, hs.getState},
		{"GET", "rooms/{room}/state/{type}", locked, hs.getStateEvent},
		{"GET", "rooms/{room}/state/{type}/{key}", locked, hs.getStateEvent},
		{"PUT", "rooms/{room}/state/{type}", locked, hs.putStateEvent},
		{"PUT", "rooms/{room}/state/{type}/{key}", locked, hs.putStateEvent},
		{"PUT", "rooms/{room}/send/{type}/{txn}", locked, hs.putSend},
		{"PUT", "rooms/{room}/redact/{event}/{txn}", locked, hs.putRedact},
		{"GET", "rooms/{room}/messages", locked, hs.getMessages},
		{"GET", "rooms/{room}/event/{event}", locked, hs.getEvent},
		{"GET", "rooms/{room}/context/{event}", locked, hs.getContext},
		{"PUT", "rooms/{room}/typing/{user}", locked, hs.putTyping},
		{"POST", "rooms/{room}/receipt/{kind}/{event}", locked, hs.postReceipt},
		{"POST", "rooms/{room}/read_markers", locked, hs.postReadMarkers},
		{"GET", "sync", free, hs.getSync},

		{"POST", "/_matrix/media/v3/upload", free, hs.postUpload},
		{"PUT", "/_matrix/media/v3/upload/{server}/{media}", free, hs.putUpload},
		{"POST", "/_matrix/media/v1/create", locked, hs.postCreateMedia},
		{"GET", "/_matrix/media/v3/config", locked, hs.getMediaConfig},
		{"GET", v1 + "media/config", locked, hs.getMediaConfig},
		{"GET", v1 + "media/download/{server}/{media}", free, hs.getDownload},
		{"GET", v1 + "media/download/{server}/{media}/{name}", free, hs.getDownload},
		{"GET", v1 + "media/thumbnail/{server}/{media}", free, hs.getThumbnail},
		{"GET", "/_matrix/media/v3/download/{server}/{media}", public, hs.getLegacyMedia},
		{"GET", "/_matrix/media/v3/download/{server}/{media}/{name}", public, hs.getLegacyMedia},
		{"GET", "/_matrix/media/v3/thumbnail/{server}/{media}", public, hs.getLegacyMedia},

		{"POST", "keys/upload", locked, hs.postKeysUpload},
		{"POST", "keys/query", locked, hs.postKeysQuery},
		{"POST", "keys/claim", locked, hs.postKeysClaim},
		{"GET", "keys/changes", locked, hs.getKeysChanges},
		{"POST", "keys/device_signing/upload", locked, hs.postCrossSigning},
		{"POST", "/_matrix/client/unstable/keys/device_signing/upload", locked, hs.postCrossSigning},
		{"POST", "keys/signatures/upload", locked, hs.postSignatures},
		{"PUT", "sendToDevice/{type}/{txn}", locked, hs.putSendToDevice},
	}
	routes := make([]route, 0, len(table))
	for _, t := range table {
		path := t.path
		if slices.Contains(hs.traits.lacks, path) {
			continue
		}
		if path[0] != '/' {
			path = "/_matrix/client/v3/" + path
		}
		routes = append(routes, route{t.method, strings.Split(path[1:], "/"), t.mode, t.serve})
	}
	return routes
}
