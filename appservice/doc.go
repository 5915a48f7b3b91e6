// Package appservice is the Matrix side of a bridge: it takes in what a homeserver sends to an application service, and
// acts as the bridge's bot and ghosts.
//
// What comes in: [AppService.ServeHTTP] takes a transaction, walks over it once, commits it to the store, and only then
// answers 200. Every event then waits in its lane (one for each room, for each device that gets to-device messages, and
// one for device lists and key counts) for the [Handler], which answers with effects; effects and progress are committed
// together. What no handler can be given, or what fails for too long, becomes a dead letter. Typing, receipts and presence
// are passed on without being stored.
//
// What goes out: an [Intent] for each user, which registers it, makes its device (MSC4190, MSC2778, MSC4326), joins rooms, and
// sends under transaction IDs that the caller gives.
//
// # Files
//
// The journey of an event: router.go (token and path), intake.go (body to commit), split.go and envelope.go (taking
// apart), worker.go (handler, effects), abreast.go, shared.go (its commit), failure.go (backoff, dead letters), decode.go. After a
// crash: heads.go, crashes.go, replay.go. Beside it: ephemeral.go, membership.go (rooms kept current, once roomread.go has read them). What the homeserver asks: question.go
// (time and panics), query.go (users and aliases), thirdparty.go. Outwards: intent.go (one for each user in use: intents.go), device.go (with device_support.go,
// what is known of the homeserver's way; device_probe.go, finding it out; login.go; device_remove.go), room.go, profile.go,
// media.go, ping.go; every request goes through transport.go, which asks act.go what it is, limits.go whether it may go now,
// and tells refused.go what it was refused; redirect.go, retryafter.go. The registration file: registration.go,
// registration_generate.go.
//
// # Rate limits
//
// A 429 is waited out for as long as it says: Retry-After in seconds or as a date (MSC4041), else retry_after_ms, else 1, 2,
// 4 … seconds; at least 100 ms. Until then nothing is sent that is known to be refused: a 429 for a ghost holds that ghost's
// requests of the same class (messages, joins, invites, other, as Synapse counts them), one for the bot or for a registration
// or a device holds that class for all, a second ghost's for joining the same room holds that room, and one without an error code, which comes from a proxy that knows addresses alone,
// holds everything. After it, requests under the limit go one at a time for a minute, and from its second refusal on at the
// pace that it was seen to allow, a tenth faster after every 20. Registrations and new devices always
// go one at a time, and so do joins into one room. A hold ends after ten minutes at the latest, when one request asks again.
//
// A request is held back for 30 s in all; then, and at once for events and under [Impatient], its caller gets an
// M_LIMIT_EXCEEDED with the time that is left, which [RetryAfter] reads.
//
// # What is repeated
//
// After a 429, up to 8 requests for one are made when doing it twice is doing it once: every GET, PUT and DELETE but those that
// send events; POST of register (a user that exists is recognised), join (who is in stays in) and leave. Not repeated:
//
//   - events (send, state, redact), although their transaction IDs make that safe: their order is the caller's;
//   - createRoom: it makes another room, and a suspended user's failed one may have left one behind;
//   - uploads: the bytes are gone; asking for a URL of one; login, which makes another token;
//   - invite, kick, ping, and all other POSTs.
//
// After any other failure, such as an answer that was lost, nothing is repeated here at all. An effect of package bridge is an
// outbox row, tried again until it is done or a dead letter; it never makes a room.
//
// # Goroutines
//
//   - Requests run in the goroutines of the http.Server. They own the body until the commit; then nobody changes it.
//   - The store's writer calls back after a commit and puts the new events into their lanes. It only takes a lock there.
//   - Workers, at most Config.Workers, exist while lanes have work (package lanes). A worker owns a lane for one turn of up
//     to 64 events; an [Event] belongs to it and to the handler for as long as HandleEvent runs. A lane in backoff holds no
//     worker, nor does one that waits for the commit of its turn: turns of up to 1024 lanes share one, which a goroutine of
//     its own makes while there are any.
//   - A query of the homeserver has the handler in a goroutine of its own, at most 64 at once, which Stop waits for; the
//     request does not wait for it beyond Config.QueryTimeout.
//   - The reader and the caller of ephemeral events run from Start to Stop. The caller alone knows who is typing.
//   - The proof of a start waits until what was found waiting has been tried and a minute has passed; see [AppService.Careful].
//   - The greeter registers the bot and pings the homeserver from Start on, until it succeeds.
//
// Intents have no goroutines: they work in the caller's. A lock for each user, and for each user and room, sees to it that
// concurrent calls make one registration, one device and one join.
//
// Stop waits for the handlers, then cancels their context; commits of what handlers had done still go through.
//
// # Example
//
//	reg, err := appservice.LoadRegistration("registration.yaml")
//	…
//	as, err := appservice.New(appservice.Config{
//		Registration:  reg,
//		HomeserverURL: "http://localhost:8008",
//		ServerName:    "example.org",
//		Store:         db,
//		Handler:       handler,
//		Log:           log,
//	})
//	…
//	go http.ListenAndServe("127.0.0.1:29400", as)
//	if err := as.Start(ctx); err != nil { … }
//	defer as.Stop(ctx)
//	_, err = as.Ghost("@irc_nick:example.org").SendMessage(ctx, room, event.EventMessage, content, txnID)
package appservice
