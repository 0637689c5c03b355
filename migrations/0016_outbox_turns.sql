-- What is pending for a remote graph is sent tenant by tenant, removals first, each statement by an index and so many rows.
ALTER TABLE authz_outbox ADD COLUMN tenant_id TEXT NOT NULL DEFAULT '';
-- Rises with every change, so that a service can tell a late one from a new one.
ALTER TABLE authz_outbox ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
-- When the service took a removal: it is read back for a while, since an older grant may still be on its way there.
ALTER TABLE authz_outbox ADD COLUMN accepted_at_ms INTEGER;

CREATE INDEX authz_outbox_by_turn ON authz_outbox (op, tenant_id, due_at_ms);
CREATE INDEX authz_outbox_by_subject ON authz_outbox (object, principal, relation);
CREATE INDEX authz_outbox_registers ON authz_outbox (object) WHERE op = 'register' AND parked_at_ms IS NULL;

-- One row: the last version given out, and the tenant whose turn was last.
CREATE TABLE authz_outbox_state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  version INTEGER NOT NULL,
  turn TEXT NOT NULL DEFAULT ''
);
