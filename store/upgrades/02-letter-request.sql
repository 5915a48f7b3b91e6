-- v1 -> v2 (compatible with v1+): Dead letters that can be replayed
ALTER TABLE dead_letter ADD COLUMN op TEXT NOT NULL DEFAULT '';
ALTER TABLE dead_letter ADD COLUMN doubt BIGINT NOT NULL DEFAULT 0;
ALTER TABLE dead_letter ADD COLUMN came_from BIGINT NOT NULL DEFAULT 0;

-- What an operator wants done with a dead letter, written by another process than the one that does it.
CREATE TABLE letter_request (
	letter   BIGINT PRIMARY KEY,
	action   TEXT   NOT NULL,
	asked    BIGINT NOT NULL,
	answered BIGINT NOT NULL,
	result   TEXT   NOT NULL,
	cause    TEXT   NOT NULL,
	went_to  BIGINT NOT NULL
);
-- The process that holds the store looks every second whether there are any.
CREATE INDEX letter_request_open ON letter_request (letter) WHERE answered = 0;
