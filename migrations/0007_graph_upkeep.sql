-- A register that a remote graph refused for good: kept, tried now and then, and in no other row's way.
ALTER TABLE authz_outbox ADD COLUMN parked_at_ms INTEGER;
CREATE INDEX authz_outbox_parked ON authz_outbox (parked_at_ms) WHERE parked_at_ms IS NOT NULL;
