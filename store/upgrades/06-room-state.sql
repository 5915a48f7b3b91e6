-- v5 -> v6: What is known of rooms
-- A row with the empty type says that the room is known (its content is 1) or being read (0); others are pieces of state
-- with an empty state key.
CREATE TABLE room_state (
	room    TEXT  NOT NULL,
	type    TEXT  NOT NULL,
	content BYTEA NOT NULL,
	PRIMARY KEY (room, type)
);
