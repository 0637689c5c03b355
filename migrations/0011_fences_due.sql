-- When the fences of a removal are placed next, and how often that has failed: one gate that is out of reach must not hold up
-- the fences of the others.
ALTER TABLE trust_pairs ADD COLUMN fences_due_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE trust_pairs ADD COLUMN fences_attempts INTEGER NOT NULL DEFAULT 0;
CREATE INDEX trust_pairs_fences_due ON trust_pairs (fences_due_at_ms) WHERE fences_owed = 1;
