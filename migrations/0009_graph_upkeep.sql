-- A register that a remote graph refused for good: kept, tried now and then, and in no other row's way.
ALTER TABLE authz_outbox ADD COLUMN parked_at_ms INTEGER;
CREATE INDEX authz_outbox_parked ON authz_outbox (parked_at_ms) WHERE parked_at_ms IS NOT NULL;

-- Agents and service accounts that an operator took a grant from: reconciliation gives them none by itself. A row goes when
-- the operator gives one again.
CREATE TABLE grants_taken (
  subject_type TEXT NOT NULL CHECK (subject_type IN ('agent', 'service_account')),
  subject_id TEXT NOT NULL,
  taken_at_ms INTEGER NOT NULL,
  PRIMARY KEY (subject_type, subject_id)
) STRICT, WITHOUT ROWID;
