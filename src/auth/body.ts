/** The request's body: counted for its address, bounded in bytes and time while it is read, before it is hashed or parsed. */
import { type BodyFailure, type BodyLimits, readBodyWithin } from "../resilience/bounded-body.ts";
import { DeadlineExceeded, lookUntil, withDeadline } from "../resilience/deadline.ts";
import { errorFields } from "../telemetry/log.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type BodyBudget, type BodyShare, MAX_BODY_BYTES } from "./limits/body-budget.ts";
import { type Refusal, refusal } from "./reasons.ts";

/** A client that needs longer than this for 1 MiB is holding a connection, not sending a message. */
export const BODY_TIMEOUT_MS = 30_000;
const LIMITS: BodyLimits = { maxBytes: MAX_BODY_BYTES, timeoutMs: BODY_TIMEOUT_MS };
/** A burst waits so long for its share, holding nothing; only then is it refused. */
const ROOM_PATIENCE_MS = 5_000;
/** When an address that holds too much may come back: a usual body is through by then. */
const NO_ROOM_RETRY_MS = 1_000;

/** A body that was read, and its share, which is given back once its caller is known. */
export type HeldBody = { readonly bytes: Uint8Array; readonly share: BodyShare };

/** Whom the bytes are counted for until the caller is known, and by which clock. */
export type BodySource = { readonly address: string | null; readonly budget: BodyBudget; readonly now: () => number };

const NEVER = new AbortController().signal;
const NO_SHARE: BodyShare = { grow: () => false, release: () => {} };

/**
 * Reads a request's body.
 *
 * @param limits for routes that take less than most
 * @returns the bytes, none for no body; otherwise nothing is held and what was refused is discarded up to a cap
 */
export async function readRequestBody(
  request: Request,
  from: BodySource,
  limits: BodyLimits = LIMITS,
): Promise<Result<HeldBody, Refusal>> {
  if (request.body === null) return ok({ bytes: new Uint8Array(0), share: NO_SHARE });
  const announced = announcedLength(request.headers, limits.maxBytes);
  if (!announced.ok) return announced;
  const share = await roomFor(announced.value ?? 0, from);
  if (share === null) return err(noRoom());
  // One of an announced length is held to it by the platform, and read in one go.
  const read =
    announced.value === null
      ? await readBodyWithin(request.body, limits, (bytes) => share.grow(bytes, from.now()))
      : await readAnnounced(request, limits.timeoutMs);
  if (read.ok) return ok({ bytes: read.value, share });
  share.release();
  return err(refusalOf(read.error));
}

async function roomFor(bytes: number, { address, budget, now }: BodySource): Promise<BodyShare | null> {
  let share = budget.take(address, bytes, now());
  if (share !== null) return share;
  await lookUntil(() => (share = budget.take(address, bytes, now())) !== null, ROOM_PATIENCE_MS, NEVER);
  return share;
}

/** @returns the length that is announced, or null when none is; a refusal when it is too long already */
function announcedLength(headers: Headers, maxBytes: number): Result<number | null, Refusal> {
  const announced = headers.get("Content-Length");
  if (announced === null) return ok(null);
  const bytes = Number(announced);
  return bytes > maxBytes ? err(refusal("body-too-large", { announcedBytes: bytes })) : ok(bytes);
}

async function readAnnounced(request: Request, timeoutMs: number): Promise<Result<Uint8Array, BodyFailure>> {
  try {
    return ok(new Uint8Array(await withDeadline(timeoutMs, () => request.arrayBuffer())));
  } catch (error) {
    return err(error instanceof DeadlineExceeded ? { kind: "too-slow" } : { kind: "broken", error });
  }
}

function refusalOf(failure: BodyFailure): Refusal {
  switch (failure.kind) {
    case "too-large":
      return refusal("body-too-large");
    case "too-slow":
      return refusal("body-too-slow");
    case "no-room":
      return noRoom();
    case "broken":
      return refusal("body-broken-off", errorFields(failure.error));
  }
}

function noRoom(): Refusal {
  return { ...refusal("body-no-room"), retryAfterMs: NO_ROOM_RETRY_MS };
}
