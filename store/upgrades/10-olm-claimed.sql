-- v9 -> v10: Whose one-time keys the bridge has begun Olm sessions with
CREATE TABLE olm_claimed (
	account     TEXT NOT NULL,
	session     TEXT NOT NULL,
	signing_key TEXT NOT NULL,
	PRIMARY KEY (account, session)
);
