-- v3 -> v4: How far the lanes of an inbox row are, in one place
-- For each lane of the row in their order an unsigned varint: everything before this position is finished. What progress
-- says of a lane holds as long as nothing behind it is finished.
CREATE TABLE finished (
	-- only: postgres
	seq  BIGINT PRIMARY KEY,
	-- only: sqlite (line commented)
--	seq  INTEGER PRIMARY KEY,
	done BYTEA NOT NULL
);
