/** Relay tickets: single use, 30 seconds, for runtimes that cannot set headers on a WebSocket (contract §2). */
import * as z from "zod/mini";
import { parseAnswer } from "./caller.ts";
import type { Send } from "./methods.ts";

const issued = z.object({ ticket: z.string(), expiresAtMs: z.number() });

/** @returns a source of fresh tickets, one for every attempt to connect. */
export function relayTicketSource(send: Send): () => Promise<string> {
  return async () => parseAnswer(issued, await send({ method: "POST", path: "/v1/relay/tickets", body: "{}" })).ticket;
}
