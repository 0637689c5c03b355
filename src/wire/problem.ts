/** Refusals on the wire: one table of codes (contract §3) and the RFC 9457 document made of them. */
import { ACCEPT_SIGNATURE } from "./proof-v2.ts";

type Problem = {
  readonly status: number;
  readonly title: string;
  /** What the caller may know and do; the full reason goes to the log alone. */
  readonly detail: string;
};

const table = {
  PROXY_HOOK_INVALID_JSON: problem(400, "Invalid JSON", "The body must be JSON in UTF-8."),
  PROXY_HOOK_RECIPIENT_REQUIRED: problem(
    400,
    "Recipient required",
    "Name the recipient in X-Claw-Recipient-Agent-Did.",
  ),
  PROXY_HOOK_RECIPIENT_INVALID: problem(
    400,
    "Recipient invalid",
    "X-Claw-Recipient-Agent-Did must be the DID of another agent.",
  ),
  PROXY_PAIR_INVALID_BODY: problem(
    400,
    "Invalid pairing request",
    "The body of the pairing request is not what this route takes.",
  ),
  PROXY_PAIR_TICKET_INVALID: problem(
    400,
    "Invalid pairing ticket",
    "Ask the initiator for a new ticket; each works once.",
  ),
  PROXY_BAD_REQUEST: problem(400, "Bad request", "The request is not what this route takes."),
  PROXY_AUTH_INVALID_TOKEN: problem(401, "Invalid token", "The credential is not accepted."),
  PROXY_AUTH_MISSING_TOKEN: problem(401, "Missing credential", "Send an Authorization header."),
  PROXY_AUTH_INVALID_SCHEME: problem(
    401,
    "Unknown authorization scheme",
    "This route does not take that Authorization scheme.",
  ),
  PROXY_AUTH_INVALID_AIT: problem(
    401,
    "Invalid identity token",
    "The agent identity token is not accepted; reissue it.",
  ),
  PROXY_AUTH_INVALID_PROOF: problem(
    401,
    "Invalid proof",
    "The proof of possession does not match this request and key.",
  ),
  PROXY_AUTH_INVALID_SIGNATURE_INPUT: problem(
    401,
    "Invalid signature",
    "The HTTP message signature does not keep the profile that Accept-Signature names.",
  ),
  PROXY_AUTH_INVALID_TIMESTAMP: problem(
    401,
    "Invalid timestamp",
    "X-Claw-Timestamp must be unix seconds, digits only.",
  ),
  PROXY_AUTH_TIMESTAMP_SKEW: problem(
    401,
    "Timestamp out of range",
    "The clocks differ too much; correct yours by GET /v1/time.",
  ),
  PROXY_AUTH_INVALID_NONCE: problem(401, "Invalid nonce", "X-Claw-Nonce must be 1 to 256 visible ASCII characters."),
  PROXY_AUTH_REPLAY: problem(401, "Replayed request", "This nonce was used before; sign each request anew."),
  PROXY_AUTH_REVOKED: problem(401, "Revoked", "The identity token has been revoked."),
  PROXY_AUTH_CLIENT_INVALIDATED: problem(
    401,
    "Client invalidated",
    "This client's token has been ended; claim or pair anew.",
  ),
  PROXY_AGENT_ACCESS_REQUIRED: problem(401, "Access token required", "Send X-Claw-Agent-Access."),
  PROXY_AGENT_ACCESS_INVALID: problem(401, "Access token invalid", "Refresh the access token and try again."),
  PROXY_AUTH_FORBIDDEN: problem(403, "Forbidden", "This credential may not do that."),
  PROXY_TRUST_UNAVAILABLE: problem(403, "Trust unavailable", "Trust cannot be established at the moment."),
  PROXY_NOT_FOUND: problem(404, "Not found", "There is no such thing, or it is not yours to know."),
  PROXY_CONFLICT: problem(409, "Conflict", "The request does not fit what is there."),
  PROXY_GONE: problem(410, "Gone", "It has expired."),
  PROXY_BODY_TOO_LARGE: problem(413, "Body too large", "The body may have at most 1 MiB."),
  PROXY_UNSUPPORTED_MEDIA_TYPE: problem(415, "Unsupported media type", "Send application/json."),
  PROXY_UPGRADE_REQUIRED: problem(426, "Upgrade required", "This route speaks WebSocket only."),
  PROXY_RATE_LIMIT_EXCEEDED: problem(429, "Too many requests", "Slow down and try again later."),
  PROXY_INTERNAL: problem(500, "Internal error", "Something went wrong here; the request id finds it in the log."),
  PROXY_AUTH_DEPENDENCY_UNAVAILABLE: problem(
    503,
    "Dependency unavailable",
    "The request cannot be judged at the moment; try again.",
  ),
  PROXY_RELAY_QUEUE_FULL: problem(
    507,
    "Queue full",
    "Too many messages wait already; try again when they are delivered.",
  ),
  PROXY_QUOTA_EXCEEDED: problem(507, "Quota exceeded", "What is kept has reached its quota; delete some of it first."),
  DRAIN_TIMEOUT: problem(
    503,
    "Not drained in time",
    "The end is on record, but calls in flight did not finish in time; try again.",
  ),
  OVERLOADED: problem(503, "Overloaded", "Too many calls are in flight; try again."),
  AUTHZ_UNAVAILABLE: problem(
    503,
    "Authorization service unavailable",
    "The relationship graph is out of reach; try again.",
  ),
} as const satisfies Record<string, Problem>;

/** Every code that a refusal can carry on the wire. */
export type ProblemCode = keyof typeof table;

/** Code → status, title and the words that a caller may read. */
export const PROBLEMS: Readonly<Record<ProblemCode, Problem>> = table;

/** `Content-Type` of a problem document. */
export const PROBLEM_CONTENT_TYPE = "application/problem+json";

const DEFAULT_RETRY_AFTER_MS = 1_000;
const REALM = 'realm="sallyport"';

/** What a handler adds to a refusal. */
export type ProxyErrorOptions = {
  /** Sent to the caller instead of the table's words; holds no secret and no more than the caller may know. */
  readonly detail?: string | undefined;
  /** For the log alone. */
  readonly reason?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  /** Sent to a caller of `/rpc` in `error.data`. */
  readonly data?: Readonly<Record<string, unknown>> | undefined;
  readonly cause?: unknown;
};

/** A refusal; its `code` decides the answer on every surface. The message is what the caller may read. */
export class ProxyError extends Error {
  override readonly name = "ProxyError";
  readonly code: ProblemCode;
  readonly status: number;
  readonly reason: string | null;
  readonly retryAfterMs: number | null;
  readonly data: Readonly<Record<string, unknown>>;

  constructor(code: ProblemCode, options: ProxyErrorOptions = {}) {
    super(options.detail ?? PROBLEMS[code].detail, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.status = PROBLEMS[code].status;
    this.reason = options.reason ?? null;
    this.retryAfterMs = options.retryAfterMs ?? null;
    this.data = options.data ?? {};
  }
}

/** @returns whether the text is a code of the table. */
export function isProblemCode(code: unknown): code is ProblemCode {
  return typeof code === "string" && Object.hasOwn(PROBLEMS, code);
}

/**
 * Makes a {@link ProxyError} of whatever was thrown. One that crossed an RPC between objects arrives as a plain
 * `Error` with `name`, `message` and `code`; a database that is out of reach becomes a 503, since that passes; anything
 * unknown becomes `PROXY_INTERNAL` with itself as the cause.
 */
export function proxyErrorFrom(thrown: unknown): ProxyError {
  if (thrown instanceof ProxyError) return thrown;
  if (thrown instanceof Error && "code" in thrown && isProblemCode(thrown.code)) {
    const { retryAfterMs, data } = thrown as { retryAfterMs?: unknown; data?: unknown };
    return new ProxyError(thrown.code, {
      detail: thrown.message,
      retryAfterMs: typeof retryAfterMs === "number" ? retryAfterMs : undefined,
      data: typeof data === "object" && data !== null ? (data as Record<string, unknown>) : undefined,
      cause: thrown,
    });
  }
  if (isDatabaseOutOfReach(thrown)) {
    const retryAfterMs = DEFAULT_RETRY_AFTER_MS;
    return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
      reason: DATABASE_OUT_OF_REACH,
      retryAfterMs,
      cause: thrown,
    });
  }
  return new ProxyError("PROXY_INTERNAL", { reason: "unexpected", cause: thrown });
}

/** Why a call failed though nothing was wrong with it, for the log. */
export const DATABASE_OUT_OF_REACH = "the database is out of reach";

/**
 * D1 has no codes: a fault of a statement names SQLite's own code, and a fault of the service does not. A gate's own database
 * is as far away when its disk is full.
 */
function isDatabaseOutOfReach(thrown: unknown): boolean {
  if (thrown instanceof Error && /: SQLITE_(?:FULL|IOERR)/.test(thrown.message)) return true;
  if (!(thrown instanceof Error) || !/^D1(?:_[A-Z]+)?\b/.test(thrown.message)) return false;
  return !/SQLITE_(?!BUSY|LOCKED|IOERR|FULL|CANTOPEN)[A-Z]+/.test(thrown.message);
}

/** @returns whether the same call may succeed a little later without the caller changing it. */
export function isRetryable(code: ProblemCode): boolean {
  if (code === "PROXY_QUOTA_EXCEEDED") return false;
  return PROBLEMS[code].status === 503 || PROBLEMS[code].status === 429 || PROBLEMS[code].status === 507;
}

/**
 * @returns the RFC 9457 answer: 401 with `WWW-Authenticate` and `Accept-Signature`, 429, 503 and a full queue with `Retry-After` (whole seconds, at
 *          least one), never cached
 */
export function problemResponse(error: ProxyError, requestId: string): Response {
  const { status, title } = PROBLEMS[error.code];
  const headers = new Headers({
    "Content-Type": PROBLEM_CONTENT_TYPE,
    "Cache-Control": "no-store",
    "X-Request-Id": requestId,
  });
  if (status === 401) {
    headers.set("WWW-Authenticate", challenge(error.code));
    headers.set("Accept-Signature", ACCEPT_SIGNATURE);
  }
  if (status === 429 || status === 503 || error.code === "PROXY_RELAY_QUEUE_FULL" || error.retryAfterMs !== null) {
    headers.set("Retry-After", String(Math.max(1, Math.ceil((error.retryAfterMs ?? DEFAULT_RETRY_AFTER_MS) / 1_000))));
  }
  if (status === 426) {
    headers.set("Upgrade", "websocket");
    headers.set("Connection", "Upgrade");
  }
  const type = `urn:sallyport:problem:${error.code.toLowerCase().replaceAll("_", "-")}`;
  const document = { type, title, status, detail: error.message, code: error.code, requestId };
  return new Response(JSON.stringify(document), { status, headers });
}

/** RFC 9110 §11.6.1: at least one challenge that could help; the token alone says which kind failed. */
function challenge(code: ProblemCode): string {
  switch (code) {
    case "PROXY_AUTH_MISSING_TOKEN":
    case "PROXY_AUTH_INVALID_SCHEME":
      return `Claw ${REALM}, Device ${REALM}, Shared ${REALM}, Bearer ${REALM}`;
    case "PROXY_AUTH_INVALID_TOKEN":
      return `Device ${REALM}, Shared ${REALM}, Bearer ${REALM}`;
    case "PROXY_AUTH_CLIENT_INVALIDATED":
      return `Device ${REALM}`;
    default:
      return `Claw ${REALM}`;
  }
}

function problem(status: number, title: string, detail: string): Problem {
  return { status, title, detail };
}
