-- What one agent has of pairing tickets, oldest first: how many may be pending, and how many that are over are remembered.
CREATE INDEX pair_tickets_of_initiator ON pair_tickets (initiator_did, expires_at_ms);
