-- The embedded registry: signing keys, agents, identity tokens, access and refresh tokens.
-- Times are milliseconds since 1970, hashes base64url of SHA-256, public keys base64url of 32 bytes.

-- Public halves alone. The private half follows from REGISTRY_SIGNING_SECRET and the kid and is never stored.
CREATE TABLE registry_keys (
  kid TEXT PRIMARY KEY,
  x TEXT NOT NULL UNIQUE,
  status TEXT NOT NULL CHECK (status IN ('active', 'revoked')),
  is_current INTEGER NOT NULL CHECK (is_current IN (0, 1)),
  created_at_ms INTEGER NOT NULL,
  -- When it stopped being the current one.
  retired_at_ms INTEGER,
  revoked_at_ms INTEGER,
  CHECK (is_current = 0 OR status = 'active')
);

-- Two isolates that make the first key, or rotate, at the same moment end with one current key.
CREATE UNIQUE INDEX registry_keys_one_current ON registry_keys (is_current) WHERE is_current = 1;

CREATE TRIGGER registry_keys_stay_revoked BEFORE UPDATE ON registry_keys
WHEN OLD.status = 'revoked' AND NEW.status <> 'revoked'
BEGIN
  SELECT RAISE(ABORT, 'a revoked signing key stays revoked');
END;

CREATE TABLE agents (
  agent_did TEXT PRIMARY KEY,
  owner_did TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  framework TEXT NOT NULL,
  description TEXT,
  -- The key it proves possession of now.
  public_key TEXT NOT NULL UNIQUE,
  ait_ttl_seconds INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  rekeyed_at_ms INTEGER,
  revoked_at_ms INTEGER,
  revoked_reason TEXT
);

CREATE TRIGGER agents_stay_revoked BEFORE UPDATE ON agents
WHEN OLD.revoked_at_ms IS NOT NULL AND NEW.revoked_at_ms IS NOT OLD.revoked_at_ms
BEGIN
  SELECT RAISE(ABORT, 'a revoked agent stays revoked');
END;

-- Every key an agent ever had. A proof does not name its agent, so a key serves one agent; and a key that was
-- ended may have been stolen, so it never serves again.
CREATE TABLE agent_keys (
  public_key TEXT PRIMARY KEY,
  agent_did TEXT NOT NULL REFERENCES agents (agent_did),
  since_ms INTEGER NOT NULL,
  ended_at_ms INTEGER
);

CREATE INDEX agent_keys_by_agent ON agent_keys (agent_did);

-- Agent identity tokens, by jti. The token itself is not kept.
CREATE TABLE aits (
  jti TEXT PRIMARY KEY,
  agent_did TEXT NOT NULL REFERENCES agents (agent_did),
  kid TEXT NOT NULL,
  issued_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  revoked_at_ms INTEGER,
  revoked_reason TEXT
);

CREATE INDEX aits_by_agent ON aits (agent_did, expires_at_ms);
CREATE INDEX aits_by_key ON aits (kid, expires_at_ms);
CREATE INDEX aits_by_expiry ON aits (expires_at_ms);
CREATE INDEX aits_revoked ON aits (expires_at_ms) WHERE revoked_at_ms IS NOT NULL;

-- All tokens that descend from one registration or re-key. Ending the family ends each of them.
CREATE TABLE token_families (
  family_id TEXT PRIMARY KEY,
  agent_did TEXT NOT NULL REFERENCES agents (agent_did),
  created_at_ms INTEGER NOT NULL,
  ended_at_ms INTEGER,
  ended_reason TEXT
);

CREATE INDEX token_families_by_agent ON token_families (agent_did);

-- An access token and the refresh token that was handed out with it.
CREATE TABLE token_pairs (
  refresh_hash TEXT PRIMARY KEY,
  access_hash TEXT NOT NULL UNIQUE,
  family_id TEXT NOT NULL REFERENCES token_families (family_id),
  agent_did TEXT NOT NULL,
  -- The agent key it was handed out to.
  key_x TEXT NOT NULL,
  issued_at_ms INTEGER NOT NULL,
  access_expires_at_ms INTEGER NOT NULL,
  refresh_expires_at_ms INTEGER NOT NULL,
  -- When the refresh token was first used, and the pair that was handed out last for it.
  used_at_ms INTEGER,
  successor_hash TEXT,
  -- A pair whose answer was lost is ended when the refresh is repeated.
  ended_at_ms INTEGER
);

CREATE INDEX token_pairs_by_family ON token_pairs (family_id);
CREATE INDEX token_pairs_by_expiry ON token_pairs (refresh_expires_at_ms);

-- What a revocation list was last signed for: `revision` changes with every revocation, `last_iat` (seconds) only rises.
CREATE TABLE crl_state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  revision TEXT NOT NULL,
  last_iat INTEGER NOT NULL
);

-- Never holds a row: a batch inserts 0 here when what it was decided on has changed, and is thereby undone whole.
CREATE TABLE registry_guard (
  holds INTEGER NOT NULL CONSTRAINT registry_is_as_read CHECK (holds = 1)
);
