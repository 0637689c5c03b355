/** One request to the registry: bounded, never redirected, and judged by nothing but what the contract names. */
import { BodyTooLarge, readBody } from "../resilience/bounded-body.ts";
import type { LoadFailure } from "../resilience/cached-call.ts";
import { parseRetryAfterMs } from "../resilience/retry-after.ts";
import { err, ok, type Result } from "../wire/result.ts";
import type { RegistryFetch, RegistryRequestInit, RequestScope } from "./scope.ts";

/** An answer with a status that the caller understands. */
export type RegistryAnswer = { status: number; body: Uint8Array };

export type RegistryQuestion = {
  path: string;
  init?: RegistryRequestInit;
  /** The statuses that are answers, each with the most that is read of its body. Any other status is a failure. */
  answers: Readonly<Record<number, number>>;
};

/** Why there is no answer, and the status where the registry gave one. */
export type RegistryFailure = LoadFailure & { readonly status?: number };

const NOTHING = new Uint8Array(0);
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @param signal aborts at the deadline of the call, which spans the reading of the body
 * @returns the answer, or why the registry counts as failing
 * @throws the signal's reason at the deadline
 */
export async function askRegistry(
  scope: RequestScope,
  question: RegistryQuestion,
  signal: AbortSignal,
): Promise<Result<RegistryAnswer, RegistryFailure>> {
  let response: Response;
  try {
    response = await scope.fetch(question.path, question.init, signal);
  } catch (error) {
    signal.throwIfAborted();
    return err({ reason: `connection: ${nameOf(error)}` });
  }
  const { status, headers, body } = response;
  const maxBytes = question.answers[status];
  if (maxBytes === undefined) {
    discard(scope, body);
    const retryAfterMs = parseRetryAfterMs(headers.get("Retry-After"), scope.now());
    return err({ reason: `status ${status}`, retryAfterMs, status });
  }
  if (maxBytes === 0) {
    discard(scope, body);
    return ok({ status, body: NOTHING });
  }
  if (Number(headers.get("Content-Length") ?? 0) > maxBytes) {
    discard(scope, body);
    return err({ reason: "document too large" });
  }
  try {
    return ok({ status, body: await readBody(body, maxBytes, signal) });
  } catch (error) {
    signal.throwIfAborted();
    const isTooLarge = error instanceof BodyTooLarge;
    return err({ reason: isTooLarge ? "document too large" : `body broke off: ${nameOf(error)}` });
  }
}

/** Gives the connection back: only six can be open at once, and an unread body holds one. */
function discard(scope: RequestScope, body: ReadableStream<Uint8Array> | null): void {
  // A body that is already torn has nothing left to cancel.
  if (body !== null) scope.background(body.cancel().catch(() => undefined));
}

/** The kind of an error without its message, which may quote what was being sent. */
function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}

/** @returns the JSON value of these bytes, or null when they are not JSON in UTF-8. */
export function parseJson(bytes: Uint8Array): { readonly value: unknown } | null {
  try {
    return { value: JSON.parse(utf8.decode(bytes)) as unknown };
  } catch (error) {
    // TextDecoder says TypeError, JSON.parse SyntaxError; anything else is not about these bytes.
    if (error instanceof TypeError || error instanceof SyntaxError) return null;
    throw error;
  }
}

/**
 * Reaches an external registry.
 *
 * @param registryUrl base URL without a slash at its end; paths are put behind it
 */
export function externalRegistry(registryUrl: string): RegistryFetch {
  return (path, init, signal) =>
    fetch(registryUrl + path, {
      method: init?.method ?? "GET",
      headers: { Accept: "application/json", ...init?.headers },
      ...(init?.body === undefined ? {} : { body: init.body }),
      // A redirect could carry an access token to another host.
      redirect: "manual",
      signal,
    });
}
