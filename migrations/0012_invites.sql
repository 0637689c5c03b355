-- Invites: whoever holds one may register an agent of its own, with a key that never leaves its machine.
-- Times are milliseconds since 1970; the secret is stored as its SHA-256 alone.

CREATE TABLE invites (
  invite_id TEXT PRIMARY KEY,
  invite_sha256 TEXT NOT NULL UNIQUE,
  owner_did TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  uses INTEGER NOT NULL,
  used INTEGER NOT NULL,
  note TEXT,
  -- Who made it, as the audit names them.
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  revoked_at_ms INTEGER,
  CONSTRAINT invites_used CHECK (used >= 0 AND used <= uses)
);

CREATE INDEX invites_by_expiry ON invites (expires_at_ms);

-- Which agents came by an invite.
CREATE TABLE invite_uses (
  invite_id TEXT NOT NULL,
  agent_did TEXT NOT NULL,
  used_at_ms INTEGER NOT NULL,
  PRIMARY KEY (invite_id, agent_did)
) WITHOUT ROWID;

-- Never holds a row: an enrolment inserts 0 here when its invite is used up, expired or revoked, and is thereby undone whole.
CREATE TABLE invite_guard (
  may_be_used INTEGER NOT NULL CONSTRAINT invite_may_be_used CHECK (may_be_used = 1)
);
