-- Fencing tokens where effects are committed, and the audit.

-- The epoch of each authority that can be revoked: `agent:<did>`, `device:<did>/<deviceId>`, `shared:<did>`,
-- `apikey:<apiKeyId>`. A missing row means epoch 0. Written by the gate alone.
CREATE TABLE authority_epochs (
  authority TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL CHECK (epoch >= 0)
);

CREATE TRIGGER authority_epochs_only_rise BEFORE UPDATE ON authority_epochs
WHEN NEW.epoch < OLD.epoch
BEGIN
  SELECT RAISE(ABORT, 'an authority epoch only rises');
END;

CREATE TRIGGER authority_epochs_stay BEFORE DELETE ON authority_epochs
BEGIN
  SELECT RAISE(ABORT, 'an authority epoch is never forgotten');
END;

-- Never holds a row: a batch under an authority inserts 0 here when its epoch has passed, and is thereby undone whole.
CREATE TABLE fence (
  current INTEGER NOT NULL CONSTRAINT authority_is_current CHECK (current = 1)
);

-- Who did what to whom, when, and with which result. `details` holds no secret.
CREATE TABLE audit (
  id TEXT PRIMARY KEY,
  at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject TEXT,
  agent_did TEXT,
  origin TEXT,
  result TEXT NOT NULL,
  request_id TEXT,
  details TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(details))
);

CREATE INDEX audit_by_time ON audit (at_ms, id);
CREATE INDEX audit_by_subject ON audit (subject, at_ms, id);
CREATE INDEX audit_by_action ON audit (action, at_ms, id);

-- How far retention has gone: rows before it may be deleted, and no others.
CREATE TABLE audit_retention (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  delete_before_ms INTEGER NOT NULL
);

CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'the audit is append-only');
END;

CREATE TRIGGER audit_rows_are_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
BEGIN
  SELECT RAISE(ABORT, 'the audit is append-only');
END;

CREATE TRIGGER audit_deletes_by_retention BEFORE DELETE ON audit
WHEN OLD.at_ms >= COALESCE((SELECT delete_before_ms FROM audit_retention WHERE id = 1), 0)
BEGIN
  SELECT RAISE(ABORT, 'audit rows are deleted by retention alone');
END;
