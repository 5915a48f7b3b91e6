BEGIN TRANSACTION;
CREATE TABLE dead_letter (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	kind     TEXT   NOT NULL,
	lane     TEXT   NOT NULL,
	key      TEXT   NOT NULL,
	cause    TEXT   NOT NULL,
	attempts BIGINT NOT NULL,
	created  BIGINT NOT NULL,
	body     BYTEA  NOT NULL
);
CREATE TABLE epoch (
	id    INTEGER PRIMARY KEY,
	value BIGINT  NOT NULL
);
INSERT INTO "epoch" VALUES(1,1);
CREATE TABLE ghost (
	user_id      TEXT   PRIMARY KEY,
	registered   BIGINT NOT NULL,
	device_id    TEXT   NOT NULL,
	device_made  BIGINT NOT NULL,
	display_name TEXT   NOT NULL,
	avatar_url   TEXT   NOT NULL,
	last_write   BIGINT NOT NULL
);
INSERT INTO "ghost" VALUES('@g:x',1,'D',1,'w7wA','',1779013800123);
CREATE TABLE inbox (
	seq      INTEGER PRIMARY KEY,
	received BIGINT NOT NULL,
	events   BIGINT NOT NULL,
	lanes    BYTEA  NOT NULL,
	body     BYTEA  NOT NULL
);
INSERT INTO "inbox" VALUES(1,1779013800123,3,X'010202216102216203010011020E010011020E010111020E',X'7B226576656E745F6964223A222431227D7B226576656E745F6964223A222432227D7B226576656E745F6964223A222433227D');
CREATE TABLE media (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	server   TEXT   NOT NULL,
	media_id TEXT   NOT NULL,
	room     TEXT   NOT NULL,
	event    TEXT   NOT NULL,
	name     TEXT   NOT NULL,
	mime     TEXT   NOT NULL,
	size     BIGINT NOT NULL,
	created  BIGINT NOT NULL,
	expires  BIGINT NOT NULL,
	revoked  BIGINT NOT NULL,
	info     BYTEA  NOT NULL
);
CREATE TABLE media_key (
	id      INTEGER PRIMARY KEY,
	secret  BYTEA   NOT NULL,
	created BIGINT  NOT NULL,
	retired BIGINT  NOT NULL
);
CREATE TABLE member (
	room       TEXT NOT NULL,
	user_id    TEXT NOT NULL,
	membership TEXT NOT NULL,
	PRIMARY KEY (room, user_id)
);
CREATE TABLE message (
	channel     TEXT   NOT NULL,
	remote_id   TEXT   NOT NULL,
	part        BIGINT NOT NULL,
	event       TEXT   NOT NULL,
	room        TEXT   NOT NULL,
	sender      TEXT   NOT NULL,
	from_matrix BIGINT NOT NULL,
	happened    BIGINT NOT NULL,
	PRIMARY KEY (channel, remote_id, part)
);
CREATE TABLE noticed (
	room TEXT NOT NULL,
	what TEXT NOT NULL,
	PRIMARY KEY (room, what)
);
CREATE TABLE outbox (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	lane     TEXT   NOT NULL,
	key      TEXT   NOT NULL,
	op       TEXT   NOT NULL,
	txn_id   TEXT   NOT NULL,
	doubt    BIGINT NOT NULL,
	attempts BIGINT NOT NULL,
	next_at  BIGINT NOT NULL,
	created  BIGINT NOT NULL,
	cause    TEXT   NOT NULL,
	payload  BYTEA  NOT NULL
);
INSERT INTO "outbox" VALUES(1,'#c','r','','',0,0,1779013800123,1795290126797,'',X'00FF');
CREATE TABLE portal (
	channel TEXT   PRIMARY KEY,
	room    TEXT   NOT NULL,
	source  TEXT   NOT NULL,
	topic   TEXT   NOT NULL,
	name    TEXT   NOT NULL,
	created BIGINT NOT NULL
);
CREATE TABLE progress (
	seq      BIGINT NOT NULL,
	lane     BIGINT NOT NULL,
	done     BIGINT NOT NULL,
	doubt    BIGINT NOT NULL,
	attempts BIGINT NOT NULL,
	next_at  BIGINT NOT NULL,
	cause    TEXT   NOT NULL,
	PRIMARY KEY (seq, lane)
) WITHOUT ROWID;
INSERT INTO "progress" VALUES(1,0,1,-1,1,1779013800123,'x');
CREATE TABLE room (
	room      TEXT   PRIMARY KEY,
	encrypted BIGINT NOT NULL
);
INSERT INTO "room" VALUES('!a',1);
CREATE TABLE seen (
	seq      INTEGER PRIMARY KEY,
	received BIGINT NOT NULL,
	hashes   BYTEA  NOT NULL
);
INSERT INTO "seen" VALUES(1,1779013800123,X'364DAEAAD904B6668C2D4FFBA7403862ACCF393AC5803FFCB4610AE9078F4744A4629166F08428F942C1FE9AE103291E');
CREATE TABLE seen_remote (
	hash  BYTEA  PRIMARY KEY,
	added BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO "seen_remote" VALUES(X'597C28C381EF1FEEE61F3E9677A628B4',1795290126797);
CREATE TABLE setting (
	key   TEXT  PRIMARY KEY,
	value BYTEA NOT NULL
);
INSERT INTO "setting" VALUES('s',X'010002');
CREATE TABLE trestle_version (version INTEGER, compat INTEGER);
INSERT INTO "trestle_version" VALUES(1,1);
CREATE INDEX dead_letter_created ON dead_letter (created);
CREATE INDEX seen_remote_added ON seen_remote (added);
CREATE INDEX message_event ON message (event);
CREATE INDEX message_happened ON message (happened);
CREATE UNIQUE INDEX portal_room ON portal (room) WHERE room <> '';
CREATE UNIQUE INDEX media_key_signing ON media_key (retired) WHERE retired = 0;
CREATE INDEX media_event ON media (room, event);
CREATE INDEX media_expires ON media (expires);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',1);
COMMIT;
