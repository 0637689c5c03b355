/** The form of a pairing ticket in the answer to `/pair/start`: opaque, or that of an existing system (`PAIR_TICKETS`). */
import type { Context } from "hono";
import { parsePairTicket, toClawdentityTicket } from "../../trust/ticket.ts";
import type { HttpEnv } from "../middleware/request-context.ts";

/** @returns the answer, its ticket in the form that the setting names; the secret in it is the same */
export async function shownTicket(
  c: Context<HttpEnv>,
  result: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  const { ticket, expiresAtMs } = result;
  if (c.get("runtime").config.pairTickets === "opaque" || typeof ticket !== "string") return result;
  const parsed = parsePairTicket(ticket);
  if (parsed === null) throw new Error("a ticket that was just made cannot be read");
  const issuer = new URL(c.req.url).origin;
  const nowMs = Date.now();
  return { ...result, ticket: await toClawdentityTicket(parsed, { issuer, expiresAtMs: Number(expiresAtMs), nowMs }) };
}
