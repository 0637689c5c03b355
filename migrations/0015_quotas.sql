-- How much of what outlasts a call an agent and a tenant have, so that a quota costs one row to look at. Kept by triggers: no
-- statement that makes or deletes a row can leave it out.

-- `agent:<did>` counts rows, `tenant:<id>` bytes. A row is there from the first thing on that is made under a quota, and is then
-- counted once from what stands.
CREATE TABLE quota_usage (
  holder TEXT PRIMARY KEY,
  tasks INTEGER NOT NULL DEFAULT 0,
  api_keys INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Never holds a row: a batch inserts 0 here when what it makes does not fit into a quota, and is thereby undone whole.
CREATE TABLE quota_guard (
  has_room INTEGER NOT NULL CONSTRAINT quota_has_room CHECK (has_room = 1)
);

-- A task: its texts, and 2 KiB for its row, index entries and tuples. A key: 1 KiB. An entry of the audit that an agent, a device or a
-- key caused: 512 bytes and its details.
CREATE TRIGGER quota_task_made AFTER INSERT ON tasks
BEGIN
  UPDATE quota_usage SET tasks = tasks + 1 WHERE holder = 'agent:' || NEW.agent_did;
  UPDATE quota_usage SET bytes = bytes + 2048 + octet_length(NEW.params) + octet_length(NEW.metadata)
    WHERE holder = 'tenant:' || NEW.tenant_id;
END;

CREATE TRIGGER quota_task_changed AFTER UPDATE OF params, metadata ON tasks
BEGIN
  UPDATE quota_usage SET bytes = MAX(0, bytes + octet_length(NEW.params) + octet_length(NEW.metadata)
      - octet_length(OLD.params) - octet_length(OLD.metadata))
    WHERE holder = 'tenant:' || NEW.tenant_id;
END;

CREATE TRIGGER quota_task_deleted AFTER DELETE ON tasks
BEGIN
  UPDATE quota_usage SET tasks = MAX(0, tasks - 1) WHERE holder = 'agent:' || OLD.agent_did;
  UPDATE quota_usage SET bytes = MAX(0, bytes - 2048 - octet_length(OLD.params) - octet_length(OLD.metadata))
    WHERE holder = 'tenant:' || OLD.tenant_id;
END;

CREATE TRIGGER quota_api_key_made AFTER INSERT ON api_keys
BEGIN
  UPDATE quota_usage SET api_keys = api_keys + 1 WHERE holder = 'agent:' || NEW.agent_did;
  UPDATE quota_usage SET bytes = bytes + 1024 WHERE holder = 'tenant:' || NEW.tenant_id;
END;

CREATE TRIGGER quota_api_key_deleted AFTER DELETE ON api_keys
BEGIN
  UPDATE quota_usage SET api_keys = MAX(0, api_keys - 1) WHERE holder = 'agent:' || OLD.agent_did;
  UPDATE quota_usage SET bytes = MAX(0, bytes - 1024) WHERE holder = 'tenant:' || OLD.tenant_id;
END;

CREATE TRIGGER quota_audit_written AFTER INSERT ON audit
WHEN NEW.agent_did IS NOT NULL AND NEW.actor NOT IN ('operator', 'sallyport')
BEGIN
  UPDATE quota_usage SET bytes = bytes + 512 + octet_length(NEW.details)
    WHERE holder = 'tenant:' || COALESCE(
      (SELECT subject_id FROM relationships WHERE object_type = 'agent' AND object_id = NEW.agent_did AND relation = 'tenant'),
      (SELECT tenant_id FROM agents WHERE agent_did = NEW.agent_did));
END;

CREATE TRIGGER quota_audit_forgotten AFTER DELETE ON audit
WHEN OLD.agent_did IS NOT NULL AND OLD.actor NOT IN ('operator', 'sallyport')
BEGIN
  UPDATE quota_usage SET bytes = MAX(0, bytes - 512 - octet_length(OLD.details))
    WHERE holder = 'tenant:' || COALESCE(
      (SELECT subject_id FROM relationships WHERE object_type = 'agent' AND object_id = OLD.agent_did AND relation = 'tenant'),
      (SELECT tenant_id FROM agents WHERE agent_did = OLD.agent_did));
END;

-- An epoch is never lowered by REPLACE either, which deletes a row without its triggers.
CREATE TRIGGER authority_epochs_are_not_replaced BEFORE INSERT ON authority_epochs
WHEN EXISTS (SELECT 1 FROM authority_epochs WHERE authority = NEW.authority AND epoch > NEW.epoch)
BEGIN
  SELECT RAISE(ABORT, 'an authority epoch only rises');
END;
