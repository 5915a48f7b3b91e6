package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/lib/pq"
	"github.com/rs/zerolog"
)

// postgresEngine keeps the database in PostgreSQL 13 or newer.
type postgresEngine struct {
	uri   *url.URL
	log   zerolog.Logger
	write *sql.DB
	read  *sql.DB
	// epochLock is an advisory lock of the schema: writers share it, whoever takes over has it alone.
	epochLock   int64
	transaction string // number of the transaction under way
}

func openPostgres(ctx context.Context, rawURI string, log zerolog.Logger) (_ *postgresEngine, err error) {
	uri, err := postgresURI(rawURI)
	if err != nil {
		return nil, err
	}
	e := &postgresEngine{uri: uri, log: log}
	defer func() {
		if err != nil {
			_ = e.close()
			err = fmt.Errorf("opening the database at %s: %w", uri.Host, redact(err, uri))
		}
	}()
	if e.write, err = openPoolOver(uri, 2, newSilenceDialer()); err != nil {
		return nil, err
	}
	if e.read, err = openPoolOver(uri, readers, newSilenceDialer()); err != nil {
		return nil, err
	}
	err = e.write.QueryRowContext(ctx, `SELECT hashtextextended('trestle epoch in ' || current_schema(), 0)`).Scan(&e.epochLock)
	if err != nil {
		return nil, err
	}
	if err = e.upgrade(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// openPool opens connections that send blobs as they are. JSON cannot be sent so: see postgresArgs.
func openPool(uri *url.URL, size int) (*sql.DB, error) { return openPoolOver(uri, size, nil) }

func openPoolOver(uri *url.URL, size int, dialer pq.Dialer) (*sql.DB, error) {
	u := *uri
	q := u.Query()
	q.Set("binary_parameters", "yes")
	if q.Get("application_name") == "" {
		q.Set("application_name", "trestle")
	}
	u.RawQuery = q.Encode()
	connector, err := pq.NewConnector(u.String())
	if err != nil {
		return nil, err
	}
	if dialer != nil {
		connector.Dialer(dialer)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

// upgrade brings the schema up to date while no other process starts. Either may take its time, so that these connections
// bear silence.
func (e *postgresEngine) upgrade(ctx context.Context) error {
	db, err := openPool(e.uri, 2)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	lock := fmt.Sprintf("%d", e.epochLock+1)
	if _, err = conn.ExecContext(ctx, "SELECT pg_advisory_lock("+lock+")"); err != nil {
		return err
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock("+lock+")") }()
	return upgrade(ctx, db, "postgres")
}

func (e *postgresEngine) placeholders(query string) string { return query }

func (e *postgresEngine) reader() *sql.DB { return e.read }

func (e *postgresEngine) dialect() string { return "postgres" }

func (e *postgresEngine) foreignArgs(args []any) []any { return postgresArgs(args) }

// connect: a process that is stopped in the middle of a transaction must not hold its locks for ever, a commit must be on
// disk when it returns, and the writer's few statements, which go by keys, need not be planned anew for each value.
func (e *postgresEngine) connect(ctx context.Context) (*sql.Conn, error) {
	conn, err := e.write.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database at %s: %w", e.uri.Host, redact(err, e.uri))
	}
	var level string
	err = conn.QueryRowContext(ctx, "SHOW synchronous_commit").Scan(&level)
	if err == nil && level == "off" {
		_, err = conn.ExecContext(ctx, "SET synchronous_commit = on")
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "SET idle_in_transaction_session_timeout = '30s'; SET plan_cache_mode = force_generic_plan")
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("setting up the connection to the database at %s: %w", e.uri.Host, redact(err, e.uri))
	}
	return conn, nil
}

// takeEpoch waits for the commits under way; those that come later see the new number.
func (e *postgresEngine) takeEpoch(ctx context.Context, conn *sql.Conn) (epoch Epoch, err error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err = tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", e.epochLock); err != nil {
		return 0, err
	}
	if err = tx.QueryRowContext(ctx, "UPDATE epoch SET value = value + 1 WHERE id = 1 RETURNING value").Scan(&epoch); err != nil {
		return 0, err
	}
	return epoch, tx.Commit()
}

// begin takes one round trip. The lock comes first, so that the epoch that is read cannot be raised before the end.
func (e *postgresEngine) begin(w *writer) (epoch Epoch, err error) {
	rows, err := w.conn.QueryContext(context.Background(), fmt.Sprintf(
		"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock_shared(%d); SELECT value, pg_current_xact_id()::text FROM epoch WHERE id = 1", e.epochLock))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	if err = lastResult(rows, 2); err != nil {
		return 0, err
	}
	if !rows.Next() {
		return 0, fmt.Errorf("reading the epoch: %w", firstError(rows.Err(), sql.ErrNoRows))
	}
	if err = rows.Scan(&epoch, &e.transaction); err != nil {
		return 0, err
	}
	return epoch, firstError(rows.Close(), rows.Err())
}

// lastResult goes on to the result that has so many columns.
func lastResult(rows *sql.Rows, columns int) error {
	for {
		names, err := rows.Columns()
		if err != nil {
			return err
		}
		if len(names) == columns {
			return nil
		}
		for rows.Next() {
		}
		if !rows.NextResultSet() {
			return firstError(rows.Err(), driver.ErrBadConn)
		}
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// commit asks for something first, in the same round trip: of a transaction that a failed statement has ended, COMMIT
// alone makes a ROLLBACK, which is no error; any other statement is refused in it, and what comes after is not run.
func (e *postgresEngine) commit() string { return "SELECT 1; COMMIT" }

// insert takes one round trip. Rows are numbered in the order of their commits, because a number that another process has
// taken and not yet committed is waited for; and a process that was paused finds its number too low even when the row that
// had it was forgotten since.
func (e *postgresEngine) insert(tx *Tx, row *newRow) (free bool, err error) {
	err = tx.row([]any{&free}, `WITH taken AS (
			INSERT INTO seen (seq, received, hashes) SELECT $1::bigint, $2::bigint, $3::bytea
			WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seq >= $1) ON CONFLICT DO NOTHING RETURNING seq
		), kept AS (
			INSERT INTO inbox (seq, received, events, lanes, body) SELECT seq, $2, $4::bigint, $5::bytea, $6::bytea FROM taken WHERE $4 > 0
		) SELECT COUNT(*) > 0 FROM taken`, row.seq, row.received, row.hashes, row.events, row.lanes, row.body)
	return free, err
}

func (e *postgresEngine) missed(tx *Tx, after int64) (out []seenRow, err error) {
	err = tx.each(func(rows *sql.Rows) error {
		var row seenRow
		err := rows.Scan(&row.seq, &row.received, &row.hashes)
		out = append(out, row)
		return err
	}, `SELECT seq, received, hashes FROM seen WHERE seq > $1 ORDER BY seq`, after)
	return out, err
}

func (e *postgresEngine) outboxIDs(tx *Tx, n int) (ids []int64, err error) {
	err = tx.each(func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, `SELECT nextval(pg_get_serial_sequence('outbox', 'id')) FROM generate_series(1, $1::bigint)`, n)
	return ids, err
}

// enqueue takes one round trip.
func (e *postgresEngine) enqueue(tx *Tx, rows []*Outgoing) error {
	n := len(rows)
	ids, doubts, attempts, nextAts, created := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	lanes, keys, ops, txnIDs, causes := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	payloads := make([][]byte, n)
	for i, o := range rows {
		ids[i], doubts[i], attempts[i], nextAts[i], created[i] = o.ID, toFlag(o.Doubt), int64(o.Attempts), toMillis(o.NextAt), toMillis(o.Created)
		lanes[i], keys[i], ops[i], txnIDs[i], causes[i] = toColumn(o.Lane), toColumn(o.Key), toColumn(o.Op), toColumn(o.TxnID), toCause(o.Cause)
		payloads[i] = toBlob(o.Payload)
	}
	_, err := tx.exec(`INSERT INTO outbox (id, lane, key, op, txn_id, doubt, attempts, next_at, created, cause, payload)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
		$9::bigint[], $10::text[], $11::bytea[])`,
		pq.Array(ids), pq.Array(lanes), pq.Array(keys), pq.Array(ops), pq.Array(txnIDs), pq.Array(doubts), pq.Array(attempts),
		pq.Array(nextAts), pq.Array(created), pq.Array(causes), pq.Array(payloads))
	return err
}

// resolveTry is how long one question after a commit may take, and resolvePause what comes between two.
const (
	resolveTry   = 10 * time.Second
	resolvePause = 200 * time.Millisecond
)

// resolve asks the server: the connection may have been lost before or after the transaction was committed. It asks until
// there is an answer, however long the server is away, or ctx ends: who waits for a commit gives up by himself, and nothing
// else could be committed meanwhile. A server that has not noticed yet that the connection is lost ends the transaction
// after the time that connect sets.
func (e *postgresEngine) resolve(ctx context.Context, cause error) (bool, error) {
	if _, ok := cause.(*pq.Error); ok && !strings.HasPrefix(string(cause.(*pq.Error).Code), "57P") {
		return false, nil // the server refused it
	}
	for told := false; ; told = true {
		var status sql.NullString
		once, cancel := context.WithTimeout(ctx, resolveTry)
		err := e.write.QueryRowContext(once, "SELECT pg_xact_status($1::text::xid8)", e.transaction).Scan(&status)
		cancel()
		switch {
		case err == nil && status.String == "committed":
			return true, nil
		case err == nil && status.String == "aborted":
			return false, nil
		case err == nil && !status.Valid:
			return false, fmt.Errorf("the server has forgotten transaction %s", e.transaction)
		case err == nil:
			err = fmt.Errorf("transaction %s is in progress", e.transaction)
		}
		if !told {
			e.log.Warn().Err(redact(err, e.uri)).Msg("The answer to a commit was lost; the database is asked what became of it until it answers")
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("asking after a commit whose answer was lost: %w", redact(err, e.uri))
		case <-time.After(resolvePause):
		}
	}
}

// settle: PostgreSQL checkpoints by itself.
func (e *postgresEngine) settle(*writer, int) {}

// close has nothing to fail with: all that was acknowledged is committed, and what a connection that was lost says at its
// end tells nobody anything.
func (e *postgresEngine) close() error {
	for _, db := range []*sql.DB{e.read, e.write} {
		if db == nil {
			continue
		}
		if err := db.Close(); err != nil {
			e.log.Debug().Err(redact(err, e.uri)).Msg("A connection to the database was not closed well")
		}
	}
	return nil
}
