/** How a relay socket ends, contract §4. */

/** Close codes of the relay socket. */
export const RELAY_CLOSE = {
  normal: 1000,
  /** Malformed frames, or another break of the rules. */
  policy: 1008,
  tooLarge: 1009,
  /** A restart; come back. Without warning it shows as 1006 and means the same. */
  restart: 1012,
  overloaded: 1013,
  /** The authority behind the socket has ended; do not come back with the same credential. */
  authorityEnded: 4001,
} as const;

/** Reasons that go with the close codes; a client decides by them whether to come back. */
export const RELAY_CLOSE_REASON = {
  superseded: "superseded",
  gatewayAuthChanged: "gateway auth changed",
  clientRotated: "client invalidated: rotated",
  clientRevoked: "client invalidated: revoked",
  clientRemoved: "client invalidated: removed",
  agentRevoked: "agent revoked",
  credentialExpired: "credential expired",
} as const;

/** The malformed frame of this number closes the socket with 1008. */
export const MALFORMED_FRAMES_MAX = 10;

/** Subprotocol that carries a relay ticket: this prefix and the ticket. */
export const TICKET_SUBPROTOCOL_PREFIX = "sallyport.ticket.";

/**
 * Subprotocol of everything that contract §4 describes; without it a server speaks the base dialect. A client uses what goes
 * beyond that, such as `deliver_working`, only where the server has answered with it.
 */
export const RELAY_SUBPROTOCOL_V1 = "sallyport.v1";
