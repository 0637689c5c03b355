/** A message on its way from the relay to the program behind the connector, and what that program made of it. */
import type { IncomingMessage } from "../client/index.ts";

/** As the client library hands it over; `payloadText` is the sender's own JSON text. */
export type Delivery = Omit<IncomingMessage, "payload"> & {
  /** When it came to this connector, in milliseconds since 1970. */
  readonly receivedAtMs: number;
};

/** What the program made of a message. */
export type Outcome =
  /** It has it, and is done with it as far as the sender is concerned. */
  | { readonly kind: "handled" }
  /** It never will: a dead letter, with a reason that the sender reads. */
  | { readonly kind: "refused"; readonly reason: string }
  /** Not now: tried again, after the time that it asked for, if it did. `reason` is for this machine's own eyes. */
  | { readonly kind: "later"; readonly reason: string; readonly retryAfterMs?: number | undefined };

/**
 * Hands one message to the program. Called for one message of a sender at a time, for several senders side by side.
 *
 * @param signal aborts when the connector ends; the message is then as if it had not been handed over
 */
export type Target = (message: Delivery, signal: AbortSignal) => Promise<Outcome>;

/** Longest reason that a sender reads, in code points (contract §4). */
export const REASON_MAX = 512;

/** @returns who sent it, by a name that keeps senders apart */
export function senderOf({ fromAgentDid, fromSubject }: Pick<Delivery, "fromAgentDid" | "fromSubject">): string {
  return fromAgentDid ?? fromSubject ?? "sallyport";
}
