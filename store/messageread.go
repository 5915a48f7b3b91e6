package store

// MessageRead notes that message number of a session was read of a sender, in an event that was written at a time of Unix milliseconds. It is false when it was
// read in another event of his: that repeats it. Others who say the same of the session are told apart: none of them reads a message away that is another's.
func (tx *Tx) MessageRead(session string, number uint, sender, event string, written int64) (first bool, err error) {
	rows, err := tx.exec(`INSERT INTO message_read (session, number, sender, event, written)
		SELECT CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS BIGINT) WHERE NOT EXISTS
			(SELECT 1 FROM crypto_message_index WHERE session_id = $1 AND "index" = $2 AND (event_id <> $4 OR timestamp <> $5))
		ON CONFLICT (session, number, sender) DO UPDATE SET written = message_read.written
			WHERE message_read.event = excluded.event AND message_read.written = excluded.written`,
		session, int64(number), toColumn(sender), toColumn(event), written)
	return rows > 0, doing(err, "noting which message was read")
}
