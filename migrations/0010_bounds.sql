-- What bounds the cost of one call for everybody.

-- Never holds a row: sharing a task inserts 0 here when the task is shared with as many subjects as it may be, and is thereby
-- undone whole.
CREATE TABLE share_guard (
  has_room INTEGER NOT NULL CONSTRAINT task_has_room_for_a_share CHECK (has_room = 1)
);

-- The agents of a person, for a list of what belongs to them.
CREATE INDEX agents_by_owner ON agents (owner_did, agent_did);

-- Whether creators decide anywhere, while the graph decides for most.
CREATE INDEX tenant_enforcement_off ON tenant_enforcement (tenant_id) WHERE enforce = 0;
