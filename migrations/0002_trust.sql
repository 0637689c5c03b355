-- Trust between agents: the one store of it. A gate remembers fences ("this peer below epoch E is out"), caches remember
-- answers, and neither is ever asked who trusts whom.

-- A pair is stored once, the smaller DID first. The epoch rises with every confirmation and every removal, so a message
-- that carries the epoch it was judged by can be told from one judged before a removal.
CREATE TABLE trust_pairs (
  low_did TEXT NOT NULL,
  high_did TEXT NOT NULL,
  epoch INTEGER NOT NULL CHECK (epoch > 0),
  low_profile TEXT NOT NULL,
  high_profile TEXT NOT NULL,
  confirmed_at_ms INTEGER NOT NULL,
  -- NULL while the pair is trusted.
  removed_at_ms INTEGER,
  -- 1 from a removal until both gates have its fence on disk.
  fences_owed INTEGER NOT NULL DEFAULT 0 CHECK (fences_owed IN (0, 1)),
  PRIMARY KEY (low_did, high_did),
  CHECK (low_did < high_did)
) WITHOUT ROWID;

CREATE INDEX trust_pairs_by_high ON trust_pairs (high_did, low_did);
CREATE INDEX trust_pairs_owing_fences ON trust_pairs (removed_at_ms) WHERE fences_owed = 1;

-- A pairing ticket: single use, stored as SHA-256 alone. `confirm_id` names the one call that consumed it, so that the
-- statements after the consumption in the same batch know whether it was theirs.
CREATE TABLE pair_tickets (
  ticket_hash TEXT NOT NULL PRIMARY KEY,
  initiator_did TEXT NOT NULL,
  initiator_profile TEXT NOT NULL,
  allowed_responder_did TEXT,
  status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'confirmed', 'ended')),
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  confirm_id TEXT UNIQUE,
  responder_did TEXT,
  responder_profile TEXT,
  confirmed_at_ms INTEGER,
  -- When to tell the initiator that the ticket was confirmed; NULL once it was told, or never had to be.
  notify_at_ms INTEGER,
  notify_attempts INTEGER NOT NULL DEFAULT 0,
  CHECK (status <> 'confirmed' OR (confirm_id IS NOT NULL AND responder_did IS NOT NULL AND confirmed_at_ms IS NOT NULL))
) WITHOUT ROWID;

CREATE INDEX pair_tickets_by_initiator ON pair_tickets (initiator_did) WHERE status = 'pending';
CREATE INDEX pair_tickets_owing_notification ON pair_tickets (notify_at_ms) WHERE notify_at_ms IS NOT NULL;
CREATE INDEX pair_tickets_by_expiry ON pair_tickets (expires_at_ms);
