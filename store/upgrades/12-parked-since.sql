-- v11 -> v12: Whose events wait for a key, and until when those wait that were taken up and wait again
ALTER TABLE parked ADD COLUMN sender TEXT NOT NULL DEFAULT '';
CREATE INDEX parked_event ON parked (room, key);
CREATE TABLE unparked (
	event   TEXT   PRIMARY KEY,
	expires BIGINT NOT NULL
-- only: postgres
);
-- only: sqlite (line commented)
--) WITHOUT ROWID;
CREATE INDEX unparked_expires ON unparked (expires);
