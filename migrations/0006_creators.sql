-- Who made a task or an API key: a person, a service account, or neither (the operator), never both. On tables that hold
-- rows already, so columns are added and nothing is rebuilt: a rebuild would take the rows of child tables with it. The
-- second column carries the constraint, because it is the first moment at which both exist.
ALTER TABLE tasks ADD COLUMN creator_user_id TEXT;
ALTER TABLE tasks ADD COLUMN creator_service_account_id TEXT
  CONSTRAINT ck_tasks_at_most_one_creator CHECK (creator_user_id IS NULL OR creator_service_account_id IS NULL);
CREATE INDEX tasks_by_creator_user ON tasks (creator_user_id, task_id) WHERE creator_user_id IS NOT NULL;
CREATE INDEX tasks_by_creator_service_account ON tasks (creator_service_account_id, task_id)
  WHERE creator_service_account_id IS NOT NULL;

ALTER TABLE api_keys ADD COLUMN creator_user_id TEXT;
ALTER TABLE api_keys ADD COLUMN creator_service_account_id TEXT
  CONSTRAINT ck_api_keys_at_most_one_creator CHECK (creator_user_id IS NULL OR creator_service_account_id IS NULL);
CREATE INDEX api_keys_by_creator_user ON api_keys (creator_user_id, api_key_id) WHERE creator_user_id IS NOT NULL;
CREATE INDEX api_keys_by_creator_service_account ON api_keys (creator_service_account_id, api_key_id)
  WHERE creator_service_account_id IS NOT NULL;
