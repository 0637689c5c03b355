-- Operators: keys of named persons and programs that run this installation, each with a role.
-- Times are milliseconds since 1970; the key is stored as its SHA-256 alone.

CREATE TABLE operators (
  operator_id TEXT PRIMARY KEY,
  key_sha256 TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  -- Who made it, as the audit names them: it ends with them.
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER,
  -- To the minute.
  last_used_at_ms INTEGER,
  revoked_at_ms INTEGER,
  CONSTRAINT operators_role CHECK (role IN ('owner', 'admin', 'registrar', 'viewer', 'metrics'))
);

-- A name is one operator's for as long as that has not been revoked.
CREATE UNIQUE INDEX operators_by_name ON operators (name) WHERE revoked_at_ms IS NULL;
CREATE INDEX operators_by_maker ON operators (created_by);
CREATE INDEX invites_by_maker ON invites (created_by);

-- The name of the operator who did it; NULL for everybody else.
ALTER TABLE audit ADD COLUMN operator TEXT;
