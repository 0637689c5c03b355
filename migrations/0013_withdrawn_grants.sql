-- Every grant that an operator took by hand, tuple by tuple: nothing gives it back by itself, neither reconciliation nor a
-- registration nor a first call, until the operator writes it again. An API key's grants that its maker did not hold stand here
-- too. `grants_taken` of 0009 is read for what was taken before, and not written any more.
CREATE TABLE withdrawn_grants (
  object_type TEXT NOT NULL,
  object_id TEXT NOT NULL,
  relation TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  subject_relation TEXT NOT NULL DEFAULT '',
  withdrawn_at_ms INTEGER NOT NULL,
  PRIMARY KEY (object_type, object_id, relation, subject_type, subject_id, subject_relation)
) STRICT, WITHOUT ROWID;

CREATE INDEX withdrawn_grants_by_subject ON withdrawn_grants (subject_type, subject_id);
