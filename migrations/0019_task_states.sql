-- How a task goes on and ends. `status` stays what an older version of the proxy reads: 'canceled' for whatever is final, so that it
-- changes nothing final. What the task is at says `state` (NULL: as `status` says), as long as `status` does not contradict it.
ALTER TABLE tasks ADD COLUMN state TEXT CONSTRAINT tasks_state
  CHECK (state IS NULL OR state IN ('running', 'input_required', 'interrupted', 'completed', 'failed', 'rejected'));
ALTER TABLE tasks ADD COLUMN status_message TEXT;
-- JSON text, kept as it came.
ALTER TABLE tasks ADD COLUMN result TEXT CONSTRAINT tasks_result CHECK (result IS NULL OR json_valid(result));
ALTER TABLE tasks ADD COLUMN ended_at_ms INTEGER;
-- The agent that made it or whose device or key did, whose sockets are told what becomes of it; NULL for an operator's.
ALTER TABLE tasks ADD COLUMN creator_agent_did TEXT;

-- Results and messages count in the tenant's bytes.
CREATE TRIGGER quota_task_updated AFTER UPDATE OF result, status_message ON tasks
BEGIN
  UPDATE quota_usage SET bytes = MAX(0, bytes
      + COALESCE(octet_length(NEW.result), 0) + COALESCE(octet_length(NEW.status_message), 0)
      - COALESCE(octet_length(OLD.result), 0) - COALESCE(octet_length(OLD.status_message), 0))
    WHERE holder = 'tenant:' || NEW.tenant_id;
END;

CREATE TRIGGER quota_task_result_deleted AFTER DELETE ON tasks
WHEN OLD.result IS NOT NULL OR OLD.status_message IS NOT NULL
BEGIN
  UPDATE quota_usage SET bytes = MAX(0, bytes
      - COALESCE(octet_length(OLD.result), 0) - COALESCE(octet_length(OLD.status_message), 0))
    WHERE holder = 'tenant:' || OLD.tenant_id;
END;
