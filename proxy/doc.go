// Package proxy gives the media of Matrix events links that open in any browser, and serves them.
//
// Homeservers give out media only for a token (MSC3916). People on a network without media of its own have none, so a bridge hands them
// a link to itself, under a message authentication code (MAC), and fetches the bytes with its own token:
//
//	mxc://example.org/AbCd  ──Signer──▶  https://bridge.example/m/AQAAAAAA…/photo.jpg  ──Server──▶  the homeserver
//
// A [Signer] makes links. A [Server] is the http.Handler that answers them; it belongs on a listener of its own, away from the
// appservice's, and [Server.Serve] gives it one with the right time limits. Both read their keys from a [KeyRing] in the store, and may run
// in different processes.
//
// # Two forms
//
// The short form, /m/{token}/{name}, is the default. Its token (34 characters) is a key ID, the number of a record in the store, and the
// MAC; the record says what the link means, and is looked up at each request, so that a revocation holds at once.
// The self-contained form, /media/{server}/{mediaID}/{name}?…&mac=, carries everything in the link and needs no store.
// In both, the name at the end is for people: changing it changes nothing.
//
// Nothing is asked of the store or of the homeserver before the MAC holds.
//
// # Pages and thumbnails
//
// A short link may lead to a page instead of a file: a text, or several files, that the network has no room for ([Page], [Signer.Page], [EditPage]). What it shows is in the store beside the
// link's record, and goes with the message. Pictures on it are thumbnails of the homeserver's in two fixed sizes, each under a MAC of its own.
//
// # Goroutines
//
// A request is served on the goroutine net/http gives it; without a cache it owns its upstream request, and ends it before it returns. With one, and for
// encrypted media, each fetch has a goroutine that owns the upstream request and fills a file that requests follow, and one that hashes it; [Server.Close] ends them. [Server.Serve]
// owns the listener's goroutine, and returns when all are done. A watcher reads keys and revocations, and sweeps the cache, twice a second from [NewServer] to [Server.Close]. A
// [Signer] and a [KeyRing] have no goroutine.
// All exported methods may be called from several goroutines at once.
package proxy
