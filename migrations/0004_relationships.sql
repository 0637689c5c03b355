-- The relationship graph: object_type:object_id#relation@subject_type:subject_id[#subject_relation].
-- The key is the tuple itself, so the table is its own index from an object to its subjects.
CREATE TABLE relationships (
  object_type TEXT NOT NULL,
  object_id TEXT NOT NULL,
  relation TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  subject_id TEXT NOT NULL,
  subject_relation TEXT NOT NULL DEFAULT '', -- '' unless the subject is a userset
  created_at_ms INTEGER NOT NULL,
  PRIMARY KEY (object_type, object_id, relation, subject_type, subject_id, subject_relation)
) STRICT, WITHOUT ROWID;

-- From a subject to its objects, in the objects' order: lists.
CREATE INDEX relationships_by_subject
  ON relationships (subject_type, subject_id, subject_relation, object_type, relation, object_id);

-- Groups among the subjects of an object, without passing its single members: what a check follows.
CREATE INDEX relationships_usersets
  ON relationships (object_type, object_id, relation) WHERE subject_relation <> '';

-- An object stands in one tenant. A second tenant tuple would open the gate of the first to strangers.
CREATE UNIQUE INDEX relationships_one_tenant
  ON relationships (object_type, object_id) WHERE relation = 'tenant';
