// Package store keeps what a bridge must not lose, in SQLite or PostgreSQL: the inbox of acknowledged events, the outbox,
// dead letters, the message map, and what is known about rooms, ghosts, portals and media links. All SQL of the framework
// lives here.
//
// # Writing
//
// Everything is written by [Store.Commit], which runs a job in a database transaction and returns when it is durable:
//
//	var lanes []store.LaneRefs
//	err := s.Commit(ctx, s.Epoch(), func(tx *store.Tx) (err error) {
//		lanes, err = tx.Ingest(&store.Transaction{ID: txnID, Received: time.Now(), Elements: elements})
//		return err
//	})
//	// err == nil: the transaction may be acknowledged, and lanes worked on.
//
// One goroutine, the writer, owns the one writing connection. It takes the jobs that wait, up to 256 or 8 MiB, and runs
// them in one database transaction, so that they share the wait for the disk. When a job fails, the transaction is rolled
// back and the others run again without it, so that it takes nothing of theirs with it. When the COMMIT fails, all jobs of
// the group get the error, and what the writer keeps in memory is what it was before.
//
// [Store.CommitSoon] is for what nobody waits for. Its jobs gather for 5 ms, run while no job of Commit is there, and are
// committed with the next one that comes, or by themselves 2 ms later. So a commit that somebody waits for, such as that of
// a transaction of the homeserver, waits for no other.
//
// Each commit carries an [Epoch]. Opening the store takes a new one; commits of a process that held the store before end
// with [ErrFenced], checked inside the database transaction. On SQLite a lock on the file PATH.lock besides keeps a second
// process out ([ErrInUse]).
//
// # The inbox
//
// One row is one transaction of the homeserver: what is left of it after de-duplication, as it came, packed where that makes it smaller, with an index of
// lanes. The first 16 bytes of the SHA-256 of each key (for an event, its ID) are kept for the newest 200,000 keys, in
// memory and in the database. [Tx.Doubt], [Tx.Attempt] and [Tx.Finish] move a lane's progress, in the commit that also holds
// the effects; a row leaves when its lanes are done. How far all lanes of a row are is one value, written once for a group;
// what there is to say of a lane that does not go well has a row of its own. [Store.Backlog] gives what is left to a process that starts.
//
// # What waits for keys
//
// [Tx.Park] takes an encrypted event out of its lane, so that others are not held up by a key that does not come; [Tx.Unpark] puts back what a key opens,
// in the commit that keeps the key, and what is parked once more waits no longer than it was to wait at first; [Store.Overdue] gives what has waited for too
// long. An event is always in one place: the inbox, parked, or a dead letter.
//
// # Dead letters
//
// [Tx.Bury] keeps what cannot be handled, with its cause. [Tx.Replay] and [Tx.ReplayOutgoing] put it back among what waits,
// in the commit in which the letter goes. Another process asks for that by [Visit]: a [Visitor] reads the dead letters
// beside the process that holds the store, takes nothing over, and leaves requests, which [Store.OpenRequests] gives to
// that process. Requests are written past the writer; they are no progress, so that no epoch guards them.
//
// # Media links
//
// What links mean, their keys and their revocations are data that several processes share, and no progress either: [MediaTx] changes them
// inside a commit, and beside the process that holds the store by [Visitor.ChangeMedia]. The memory of the process that holds the store has
// nothing of them.
//
// # Goroutines
//
//	writer        owns the writing connection, the memory of seen keys and the progress of live rows; runs the jobs and
//	              the AfterCommit hooks
//	checkpointer  SQLite only: writes the WAL back while the writer goes on, on a connection of its own
//	retention     commits deletions, a minute after the start and every hour
//
// [Store.Close] ends all three. Reads run on the caller's goroutine and on reading connections, which cannot write; bodies
// of inbox rows go through a cache of 4 MiB. The progress of rows with 65,536 events is in memory, that of others is read
// when it is needed: a longer backlog takes no more.
//
// On SQLite, whether a room is encrypted and who is in it is remembered, up to 8,192 answers: a job that changes a room takes
// it out before anything of that can be durable, and until its group has ended the database is asked. A PostgreSQL may have
// been changed by another process.
//
// # Retention
//
//	inbox, outbox     until done, however old; who works on them gives up and buries after a time
//	parked events     until their key comes, or the time that Park was given is over: then they become dead letters
//	seen keys         the newest 200,000 (Options.SeenEvents) by number, not by age: a homeserver that comes back after a
//	                  week repeats nothing. Older ones go when 64 transactions' keys are too many
//	dead letters      90 days since burial, or until replayed or dropped (Retention.DeadLetters)
//	requests for them until carried out, and a day more
//	message map       365 days since the message (Retention.Messages)
//	remote keys       30 days since Enqueue (Retention.Remote)
//	media records     30 days since their expiry; for ever when they do not expire (Retention.Media)
//	media pages       until their message is redacted, within an hour after their link's end, or 30 days after its
//	                  revocation (Retention.Media); for ever when it does not expire
//	media revocations for ever: a self-contained link may live as long, and one is about 200 bytes
//	media keys        for ever; there can be 255
//	rooms, their state, members, notices, ghosts, portals, settings: for ever, or until deleted
//
// # Databases
//
// SQLite runs in WAL mode with synchronous=FULL, which is checked at the start, in a file that only its owner can read.
// A build with cgo uses mattn/go-sqlite3, one without modernc.org/sqlite; each reads the other's files. PostgreSQL must be
// 13 or newer. The tables' version is in trestle_version. mautrix's crypto store shares the database, with tables and a version
// of its own, which [Open] brings up to date; it reaches them by [Store.Foreign].
// All times are milliseconds since 1970, and all text survives as the bytes it was.
package store
