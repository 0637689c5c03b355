/** Whether a relay connection comes back after its socket has closed. Pure. */
import { RELAY_CLOSE, RELAY_CLOSE_REASON } from "../../wire/relay-close.ts";
import {
  ClockNotTrustedError,
  CredentialExpiredError,
  CredentialNotYetValidError,
  ProblemError,
  UnexpectedAnswerError,
  UnreachableError,
} from "../transport/errors.ts";

/**
 * Why a relay connection has ended permanently:
 * `closed` by its own side · `superseded` by a newer connection of the agent · `credential-ended`: revoked, rotated,
 * expired; get a new credential first · `policy`: the server refuses how this client speaks · `refused`: the server does
 * not give a ticket.
 */
export type RelayEnd = {
  readonly why: "closed" | "superseded" | "credential-ended" | "policy" | "refused";
  /** In words, e.g. the reason of the close frame. */
  readonly detail: string;
  /** Close code of the socket; null when it never opened. */
  readonly closeCode: number | null;
  readonly error: Error | null;
};

/** What to do after a socket has closed or an attempt has failed. */
export type Next =
  | { readonly do: "return"; readonly atLeastMs: number }
  | { readonly do: "stop"; readonly end: RelayEnd };

const OVERLOADED_PAUSE_MS = 5_000;
const CLOCK_PAUSE_MS = 30_000;
/** Refusals of the moment: another try, signed anew, may be taken. */
const PASSING_CODES = new Set([
  "PROXY_AUTH_REPLAY",
  "PROXY_AUTH_TIMESTAMP_SKEW",
  "PROXY_TRUST_UNAVAILABLE",
  "PROXY_AGENT_ACCESS_INVALID",
]);

/**
 * @param close what the socket closed with; 1006 (no close frame) means a restart like 1012
 * @param mayReturnAfterExpiry whether the client holds a newer credential than the socket's own
 */
export function afterClose(close: { code: number; reason: string }, mayReturnAfterExpiry: boolean): Next {
  const { code, reason } = close;
  const stop = (why: RelayEnd["why"]): Next => ({
    do: "stop",
    end: { why, detail: reason === "" ? `closed with ${code}` : reason, closeCode: code, error: null },
  });
  if (reason === RELAY_CLOSE_REASON.superseded) return stop("superseded");
  switch (code) {
    case RELAY_CLOSE.authorityEnded:
      return reason === RELAY_CLOSE_REASON.credentialExpired && mayReturnAfterExpiry
        ? { do: "return", atLeastMs: 0 }
        : stop("credential-ended");
    case RELAY_CLOSE.policy:
      return stop("policy");
    case RELAY_CLOSE.overloaded:
      return { do: "return", atLeastMs: OVERLOADED_PAUSE_MS };
    default:
      return { do: "return", atLeastMs: 0 };
  }
}

/** @param error what asking for a ticket has thrown @returns what to do: wait for what passes, or stop */
export function afterTicketError(error: unknown): Next {
  if (error instanceof ProblemError) {
    const passing =
      PASSING_CODES.has(error.code) || error.status === 408 || error.status === 429 || error.status >= 500;
    if (passing) return { do: "return", atLeastMs: error.retryAfterMs ?? 0 };
    const why = error.status === 401 ? "credential-ended" : "refused";
    return { do: "stop", end: { why, detail: `${error.code}: ${error.message}`, closeCode: null, error } };
  }
  if (error instanceof CredentialNotYetValidError) return { do: "return", atLeastMs: error.retryAfterMs };
  // The own clock may be set meanwhile.
  if (error instanceof ClockNotTrustedError) return { do: "return", atLeastMs: CLOCK_PAUSE_MS };
  if (error instanceof CredentialExpiredError) {
    return { do: "stop", end: { why: "credential-ended", detail: error.message, closeCode: null, error } };
  }
  const isOutage = error instanceof UnexpectedAnswerError && error.status !== null && error.status >= 500;
  if (isOutage || error instanceof UnreachableError) return { do: "return", atLeastMs: 0 };
  const cause = error instanceof Error ? error : new Error("the ticket source failed", { cause: error });
  return { do: "stop", end: { why: "refused", detail: cause.message, closeCode: null, error: cause } };
}
