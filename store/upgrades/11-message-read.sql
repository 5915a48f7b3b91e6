-- v10 -> v11: Which messages of a room key were read, of each sender apart
-- In the place of mautrix's crypto_message_index, which does not say whose a message was. What that holds still counts, for everybody.
CREATE TABLE message_read (
	session TEXT   NOT NULL,
	number  BIGINT NOT NULL,
	sender  TEXT   NOT NULL,
	event   TEXT   NOT NULL,
	written BIGINT NOT NULL,
	PRIMARY KEY (session, number, sender)
-- only: postgres
);
-- only: sqlite (line commented)
--) WITHOUT ROWID;
