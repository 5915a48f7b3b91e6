-- v6 -> v7: Links to what an edit brought
-- The event whose content the link leads to, when that edited the record's event: the link ends with either. Empty: the record's event itself.
ALTER TABLE media ADD COLUMN edit TEXT NOT NULL DEFAULT '';
CREATE INDEX media_edit ON media (edit);
