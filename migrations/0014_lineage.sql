-- What made an API key and what it ends with, and which ends have left rows behind.

-- The authority that made it: `agent:<did>`, `device:<did>/<deviceId>`, `apikey:<apiKeyId>` or `operator`; and every device and key
-- that it descends from, outermost first, as JSON. NULL where an older version made the key: then `first_maker` and
-- `creator_service_account_id` say what is known.
ALTER TABLE api_keys ADD COLUMN maker TEXT;
ALTER TABLE api_keys ADD COLUMN lineage TEXT CONSTRAINT ck_api_keys_lineage CHECK (lineage IS NULL OR json_valid(lineage));
CREATE INDEX api_keys_by_maker ON api_keys (maker, api_key_id) WHERE maker IS NOT NULL;

-- Authorities whose end is also that of keys: their rows and grants are deleted from here, a bounded number at a time. The keys
-- themselves were over when the end was answered. `issued:<did>` stands for all keys of an agent.
CREATE TABLE api_key_cleanup (
  maker TEXT PRIMARY KEY,
  agent_did TEXT NOT NULL,
  noted_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
