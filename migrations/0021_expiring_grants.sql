-- When a grant ends by itself; one that is not here does not. It is none from that moment on, and reconciliation removes it.
CREATE TABLE relationship_expiries (
  object_type TEXT NOT NULL,
  object_id TEXT NOT NULL,
  relation TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  subject_relation TEXT NOT NULL DEFAULT '',
  expires_at_ms INTEGER NOT NULL,
  PRIMARY KEY (object_type, object_id, relation, subject_type, subject_id, subject_relation)
) STRICT, WITHOUT ROWID;

CREATE INDEX relationship_expiries_by_time ON relationship_expiries (expires_at_ms);
