-- Tasks, API keys, what a remote relationship graph has yet to hear, and which tenants the graph decides for.

CREATE TABLE tasks (
  task_id TEXT PRIMARY KEY,
  tenant_id TEXT NOT NULL,
  -- Unique within the tenant; many tasks have none.
  name TEXT,
  agent_did TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'canceled')),
  params TEXT NOT NULL CHECK (json_valid(params)),
  metadata TEXT NOT NULL CHECK (json_valid(metadata)),
  created_at_ms INTEGER NOT NULL,
  updated_at_ms INTEGER NOT NULL
);

-- The name first, so that the operator, who is in no tenant, finds a name too.
CREATE UNIQUE INDEX tasks_by_name ON tasks (name, tenant_id) WHERE name IS NOT NULL;
CREATE INDEX tasks_by_agent ON tasks (agent_did, task_id);
CREATE INDEX tasks_by_tenant ON tasks (tenant_id, task_id);

-- API keys: the key itself is never stored, only the base64url of its SHA-256. `generation` is that of the agent's gate when
-- the key was made: whatever ends everything of the agent raises it there.
CREATE TABLE api_keys (
  api_key_id TEXT PRIMARY KEY,
  key_hash TEXT NOT NULL UNIQUE,
  service_account_id TEXT NOT NULL UNIQUE,
  agent_did TEXT NOT NULL,
  tenant_id TEXT NOT NULL,
  name TEXT NOT NULL,
  -- Separated by spaces.
  scopes TEXT NOT NULL,
  generation INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER,
  -- To the minute.
  last_used_at_ms INTEGER
);

CREATE INDEX api_keys_by_agent ON api_keys (agent_did, api_key_id);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, api_key_id);

-- What a remote graph has yet to hear, oldest first for each object. A row goes when the graph has taken it.
CREATE TABLE authz_outbox (
  id TEXT PRIMARY KEY,
  op TEXT NOT NULL CHECK (op IN ('register', 'deregister')),
  -- `type:id`
  object TEXT NOT NULL,
  -- NULL: nobody's, or for a deregister everybody's.
  principal TEXT,
  parent TEXT,
  -- NULL for an owner.
  relation TEXT,
  created_at_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  due_at_ms INTEGER NOT NULL,
  -- Whoever sends it holds it until then.
  lease_until_ms INTEGER NOT NULL DEFAULT 0,
  lease_id TEXT,
  last_error TEXT
);

CREATE INDEX authz_outbox_by_object ON authz_outbox (object, id);
CREATE INDEX authz_outbox_by_due ON authz_outbox (due_at_ms);

-- A tenant without a row is as FGAC_ENFORCE says.
CREATE TABLE tenant_enforcement (
  tenant_id TEXT PRIMARY KEY,
  enforce INTEGER NOT NULL CHECK (enforce IN (0, 1)),
  changed_at_ms INTEGER NOT NULL
);
