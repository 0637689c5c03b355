-- Groups of agents. Membership is trust: who is in a group together may send to each other in it.
-- Times are milliseconds since 1970; a join token is stored as its SHA-256 alone.

-- The epoch rises whenever somebody comes or goes, so a message that carries the epoch it was judged by can be told from one
-- judged before.
CREATE TABLE agent_groups (
  group_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  created_by TEXT NOT NULL,
  created_at_ms INTEGER NOT NULL,
  -- Set from a deletion on until the gates of all members hold its fence; then the row goes.
  deleted_at_ms INTEGER
);

CREATE TABLE group_members (
  group_id TEXT NOT NULL,
  agent_did TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('member', 'admin')),
  joined_at_ms INTEGER NOT NULL,
  PRIMARY KEY (group_id, agent_did)
) WITHOUT ROWID;

CREATE INDEX group_members_by_agent ON group_members (agent_did, group_id);

-- Single use. `use_id` names the one call that used it, so that the statements after the use in the same batch know whether it
-- was theirs.
CREATE TABLE group_tokens (
  token_sha256 TEXT NOT NULL PRIMARY KEY,
  group_id TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('member', 'admin')),
  -- The admin who made it. It ends with that admin's place in the group,
  made_by TEXT NOT NULL,
  -- and with each of these authorities: JSON, a list of name and epoch.
  made_under TEXT NOT NULL CHECK (json_valid(made_under)),
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  use_id TEXT UNIQUE,
  used_by TEXT
) WITHOUT ROWID;

CREATE INDEX group_tokens_by_group ON group_tokens (group_id, expires_at_ms);
CREATE INDEX group_tokens_by_expiry ON group_tokens (expires_at_ms);

-- What gates have to be notified of and are not known to have on disk: that a member is out below an epoch, that the group is
-- (`subject` is empty), or that one has come, so that what goes to all is sent by a list that has it (`subject` is `+`).
CREATE TABLE group_fences (
  group_id TEXT NOT NULL,
  subject TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  due_at_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (group_id, subject)
) WITHOUT ROWID;

CREATE INDEX group_fences_due ON group_fences (due_at_ms);
