/** Relay tickets: single use, 30 s, carrying their issuer's authority and no more. Contract §2. */
import type { AuthorityRef } from "../../authority/reference.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../../authority/secrets.ts";
import { decodeBase64Url, encodeBase64Url } from "../../wire/base64url.ts";
import { type AgentDid, parseAgentDid } from "../../wire/did.ts";

const TICKET_TTL_MS = 30_000;
const TICKET_PATTERN = new RegExp(`^${SECRET_PREFIXES.relayTicket}([A-Za-z0-9_-]{43})\\.([A-Za-z0-9_-]{40,512})$`);

/**
 * The agent whose gate a ticket belongs to: it stands in the ticket, since a subprotocol comes without other headers.
 *
 * @returns null for what is no ticket.
 */
export function agentOfRelayTicket(ticket: string): AgentDid | null {
  const bytes = decodeBase64Url(TICKET_PATTERN.exec(ticket)?.[2] ?? "");
  return bytes === null ? null : parseAgentDid(new TextDecoder().decode(bytes));
}

export type RelayTickets = {
  /** Makes a ticket; what it carries is written only by `keep`, after the caller has looked at its authority again. */
  make(agentDid: AgentDid): Promise<{ ticket: string; sha256: string }>;
  /** Keeps a ticket for 30 s. @returns when it ends, in milliseconds since the epoch */
  keep(sha256: string, carried: AuthorityRef, nowMs: number): number;
  /** Whether there is such a ticket; reads only. */
  has(sha256: string): boolean;
  /** Uses a ticket up. @returns the authority it carries; null when there is none, or none any more */
  consume(sha256: string, nowMs: number): AuthorityRef | null;
  /** Forgets tickets past their time. */
  prune(nowMs: number): void;
};

/** @returns the relay tickets of one gate. */
export function createRelayTickets(sql: SqlStorage): RelayTickets {
  return {
    async make(agentDid) {
      const issuer = encodeBase64Url(new TextEncoder().encode(agentDid));
      const ticket = `${newSecret(SECRET_PREFIXES.relayTicket)}.${issuer}`;
      return { ticket, sha256: await hashSecret(ticket) };
    },

    keep(sha256, carried, nowMs) {
      const expiresAtMs = nowMs + TICKET_TTL_MS;
      sql.exec(
        "INSERT INTO relay_tickets (ticket_sha256, expires_at_ms, authority) VALUES (?, ?, ?)",
        sha256,
        expiresAtMs,
        JSON.stringify(carried),
      );
      return expiresAtMs;
    },

    has: (sha256) => sql.exec("SELECT 1 FROM relay_tickets WHERE ticket_sha256 = ?", sha256).toArray().length > 0,

    consume(sha256, nowMs) {
      const row = sql
        .exec<{ expires_at_ms: number; authority: string }>(
          "DELETE FROM relay_tickets WHERE ticket_sha256 = ? RETURNING expires_at_ms, authority",
          sha256,
        )
        .toArray()[0];
      if (row === undefined || row.expires_at_ms <= nowMs) return null;
      return JSON.parse(row.authority) as AuthorityRef;
    },

    prune(nowMs) {
      sql.exec("DELETE FROM relay_tickets WHERE expires_at_ms <= ?", nowMs);
    },
  };
}
