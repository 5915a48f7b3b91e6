-- v4 -> v5: Pages behind media links
-- What a link leads to: a file of the homeserver (empty), or a page of this kind, whose server and media_id are empty.
ALTER TABLE media ADD COLUMN kind TEXT NOT NULL DEFAULT '';

-- What a page shows, apart from the record: it goes with the message, and before the record.
CREATE TABLE media_page (
	-- only: postgres
	record  BIGINT PRIMARY KEY,
	-- only: sqlite (line commented)
--	record  INTEGER PRIMARY KEY,
	written BIGINT NOT NULL,
	body    BYTEA  NOT NULL
);
