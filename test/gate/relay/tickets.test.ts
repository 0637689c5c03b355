import { describe, expect, test } from "vitest";
import type { AuthorityRef } from "../../../src/authority/reference.ts";
import { agentOfRelayTicket, createRelayTickets } from "../../../src/gate/relay/tickets.ts";
import { admissionOf, newAgentDid, onStorage, START_MS } from "../../support/gate.ts";

const agent = newAgentDid();
const { principal } = admissionOf(agent);
const authority: AuthorityRef = { kind: "agent", epoch: 3, jti: principal.jti, expMs: principal.expMs, principal };

describe("a relay ticket", () => {
  test("names its agent and nothing that lets its secret be guessed", async () => {
    const seen = await onStorage(async (sql) => {
      const tickets = createRelayTickets(sql);
      const { ticket, sha256 } = await tickets.make(agent);
      tickets.keep(sha256, authority, START_MS);
      return { ticket, stored: JSON.stringify(sql.exec("SELECT * FROM relay_tickets").toArray()) };
    });
    expect(agentOfRelayTicket(seen.ticket)).toBe(agent);
    expect(seen.stored).not.toContain(/^spw_([^.]+)/.exec(seen.ticket)?.[1]);
  });

  test.each([
    ["at once", 0, true],
    ["in its last millisecond", 29_999, true],
    ["after 30 seconds", 30_000, false],
    ["an hour later", 3_600_000, false],
  ])("used %s", async (_, afterMs, isGood) => {
    const seen = await onStorage(async (sql) => {
      const tickets = createRelayTickets(sql);
      const { sha256 } = await tickets.make(agent);
      const expiresAtMs = tickets.keep(sha256, authority, START_MS);
      return {
        expiresAtMs,
        first: tickets.consume(sha256, START_MS + afterMs),
        second: tickets.consume(sha256, START_MS),
      };
    });
    expect(seen).toEqual({ expiresAtMs: START_MS + 30_000, first: isGood ? authority : null, second: null });
  });

  test.each(["", "spw_", "hello", `spw_${"A".repeat(43)}`, `spw_${"A".repeat(43)}.${"B".repeat(60)}`])(
    "that is none names nobody: %j",
    (text) => {
      expect(agentOfRelayTicket(text)).toBeNull();
    },
  );
});
