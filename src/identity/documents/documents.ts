/** The three public documents of the registry, contract §1: over HTTP, and in-process for this Worker's own chain. */
import type { Config } from "../../config.ts";
import { type BodyFailure, readBodyWithin } from "../../resilience/bounded-body.ts";
import { ProxyError, problemResponse, proxyErrorFrom } from "../../wire/problem.ts";
import {
  ACCESS_HEADER,
  ACCESS_VALIDATE_PATH,
  CRL_PATH,
  KEYS_PATH,
  parseAccessValidationBody,
} from "../../wire/registry-documents.ts";
import { registryOf } from "../registry.ts";
import { signedRevocationList } from "./revocation-list.ts";
import { listSigningKeys } from "../keys/signing-keys.ts";
import { isAccessValid } from "../tokens/token-pairs.ts";

/** What the documents are made of: the database, the settings, and the clock in milliseconds since 1970. */
export type DocumentSource = { db: D1Database; config: Config; now: () => number };

/** Anybody may ask, so a body is held to few bytes and little time: a usual one has some 150 bytes, sent at once. */
const VALIDATION_BODY = { maxBytes: 4_096, timeoutMs: 5_000 } as const;
/** May be kept, but is asked for again before each use: a revoked key or token must not live on in somebody's cache. */
const DOCUMENT_HEADERS = { "Content-Type": "application/json", "Cache-Control": "no-cache" };

/** `GET /.well-known/claw-keys.json`. @throws ProxyError when the registry is off or D1 fails */
export async function keysResponse(source: DocumentSource): Promise<Response> {
  const keys = await listSigningKeys(registryOf(source));
  return new Response(JSON.stringify({ keys }), { headers: DOCUMENT_HEADERS });
}

/** `GET /v1/crl`. @throws ProxyError when the registry is off, D1 fails, or no key can sign */
export async function crlResponse(source: DocumentSource): Promise<Response> {
  return new Response(await signedRevocationList(registryOf(source)), { headers: DOCUMENT_HEADERS });
}

/**
 * `POST /v1/agents/auth/validate`.
 *
 * @returns 204 for a valid access token
 * @throws ProxyError PROXY_AGENT_ACCESS_INVALID (401) for one that is not, PROXY_BAD_REQUEST for a body that is none or
 *         does not come, PROXY_BODY_TOO_LARGE for one beyond 4 KiB
 */
export async function accessValidationResponse(source: DocumentSource, request: Request): Promise<Response> {
  const registry = registryOf(source);
  const token = request.headers.get(ACCESS_HEADER);
  const claim = await readValidationBody(request);
  if (token === null || !(await isAccessValid(registry, { token, ...claim }))) {
    throw new ProxyError("PROXY_AGENT_ACCESS_INVALID", { reason: "the registry does not know this access token" });
  }
  return new Response(null, { status: 204 });
}

async function readValidationBody(request: Request): Promise<{ agentDid: string; aitJti: string }> {
  // Nothing before this route bounds a body; a longer one is discarded up to a cap, so that its sender receives the answer.
  const bytes = await readBodyWithin(request.body, VALIDATION_BODY);
  if (!bytes.ok) throw bodyRefusal(bytes.error);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes.value));
  } catch (error) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "The body must be JSON.", cause: error });
  }
  const body = parseAccessValidationBody(value);
  if (!body.ok) throw new ProxyError("PROXY_BAD_REQUEST", { detail: `${body.error}.` });
  return body.value;
}

function bodyRefusal({ kind }: BodyFailure): ProxyError {
  switch (kind) {
    case "too-large":
      return new ProxyError("PROXY_BODY_TOO_LARGE", { reason: kind, detail: "The body may have at most 4 KiB." });
    case "too-slow":
      return new ProxyError("PROXY_BAD_REQUEST", { reason: kind, detail: "The body took too long to arrive." });
    case "no-room":
    case "broken":
      return new ProxyError("PROXY_BAD_REQUEST", { reason: kind, detail: "The body broke off." });
  }
}

/** One call to a registry: a path such as `/v1/crl`, what `fetch` takes, and when to give up. */
export type RegistryFetch = (path: string, init?: RequestInit, signal?: AbortSignal) => Promise<Response>;

/**
 * The embedded registry as the registry client sees any other: the same documents, without a network between.
 *
 * @returns a function that answers like the HTTP routes; it rejects with the signal's reason when that fires first
 */
export function embeddedRegistryFetch(source: DocumentSource): RegistryFetch {
  return async (path, init = {}, signal) => {
    signal?.throwIfAborted();
    const request = new Request(`https://registry.invalid${path}`, init);
    const answered = answer(source, request).catch((error: unknown) => failure(error));
    if (signal === undefined) return answered;
    // D1 cannot be stopped; the caller's deadline ends the wait, not the work.
    let onAbort: (() => void) | null = null;
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => reject(signal.reason instanceof Error ? signal.reason : new Error("aborted"));
      signal.addEventListener("abort", onAbort, { once: true });
    });
    try {
      return await Promise.race([answered, aborted]);
    } finally {
      if (onAbort !== null) signal.removeEventListener("abort", onAbort);
    }
  };
}

async function answer(source: DocumentSource, request: Request): Promise<Response> {
  switch (`${request.method} ${new URL(request.url).pathname}`) {
    case `GET ${KEYS_PATH}`:
      return keysResponse(source);
    case `GET ${CRL_PATH}`:
      return crlResponse(source);
    case `POST ${ACCESS_VALIDATE_PATH}`:
      return accessValidationResponse(source, request);
    default:
      throw new ProxyError("PROXY_NOT_FOUND");
  }
}

function failure(error: unknown): Response {
  const told = problemResponse(proxyErrorFrom(error), "embedded-registry");
  // For clients; the caller here has a breaker of its own, which a time to come back would open at the first failure.
  told.headers.delete("Retry-After");
  return told;
}
