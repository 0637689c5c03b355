/**
 * Relay tickets: single use, 30 seconds, for runtimes that cannot set headers on a WebSocket (contract §2). The holder of a
 * credential fetches them; a web page needs nothing else to open the relay.
 *
 * @example
 * ```ts
 * // In a page: its own backend, which holds the agent's keys, answers with what `agent.relayTicket()` gives it.
 * const ticket = async () => (await agent.relayTicket()).ticket;
 * const relay = connectByTicket({ baseUrl, ticket }, { onMessage: (message) => console.log(message.payload) });
 * await relay.opened();
 * relay.close();
 * console.log((await relay.ended).why); // closed
 * ```
 */
import * as z from "zod/mini";
import { parseAnswer, parseBaseUrl } from "../transport/http-call.ts";
import { SallyportError, UnreachableError } from "../transport/errors.ts";
import type { Send } from "../methods/rpc.ts";
import { connectRelay, type RelayConnection, type RelayHandlers, type RelayOptions } from "./connection.ts";

const issued = z.object({ ticket: z.string(), expiresAtMs: z.number() });

/** Opens one relay socket, once, until it expires. Secret until then. */
export type RelayTicket = z.infer<typeof issued>;

/** What a connection by tickets alone is made with. */
export type TicketConnection = {
  /** Where the Sallyport is, e.g. `https://gate.example.com`. */
  readonly baseUrl: string;
  /**
   * Asked for a fresh ticket before each attempt to connect. Null ends the connection as `refused`; so does an error of
   * this library that says that the credential is over. Any other failure counts as an outage, and it is asked again.
   */
  readonly ticket: () => Promise<string | null>;
  /** The own clock in milliseconds since 1970, instead of `Date.now`. */
  readonly now?: (() => number) | undefined;
};

/** @param send how a request of the client is authorized @returns what fetches a ticket */
export function createRelayTicket(send: Send): () => Promise<RelayTicket> {
  return async () => parseAnswer(issued, (await send({ method: "POST", path: "/v1/relay/tickets", body: "{}" })).json);
}

/**
 * Opens the relay with tickets alone, without a credential: what a web page does whose backend keeps the keys. The page's
 * origin has to be among the installation's `RELAY_ALLOWED_ORIGINS`, unless it is the installation's own.
 *
 * @throws TypeError when the base URL is no http(s) URL, or the platform has no WebSocket
 */
export function connectByTicket(
  { baseUrl, ticket, now = Date.now }: TicketConnection,
  handlers: RelayHandlers,
  options: RelayOptions = {},
): RelayConnection {
  return connectRelay({
    ...options,
    handlers,
    baseUrl: parseBaseUrl(baseUrl),
    nowMs: now,
    ticket: () => nextTicket(ticket),
    // The source of the tickets knows whether there is a newer credential.
    mayReturnAfterExpiry: () => true,
  });
}

async function nextTicket(source: TicketConnection["ticket"]): Promise<string> {
  let ticket: string | null;
  try {
    ticket = await source();
  } catch (error) {
    if (error instanceof SallyportError) throw error;
    throw new UnreachableError("UNREACHABLE", "the source of tickets has failed", { cause: error });
  }
  if (ticket === null) throw new SallyportError("NO_TICKET", "there is no ticket any more");
  // No WebSocket would be made with it, which would look like an outage.
  if (!/^[\w.~-]+$/.test(ticket)) throw new SallyportError("INVALID_TICKET", "what the source gave is no ticket");
  return ticket;
}
