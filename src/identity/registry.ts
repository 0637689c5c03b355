/** The embedded registry's surroundings and its numbers. */
import type { Config } from "../config.ts";
import type { Undone } from "../database/batch.ts";
import { storeFailure } from "../database/read.ts";
import { issuerHost } from "../wire/ait.ts";
import { ProxyError } from "../wire/problem.ts";

const DAY_SECONDS = 86_400;
const DAY_MS = 86_400_000;

/** Life of an identity token when the operator names none, and the bounds of what the operator may name. */
export const AIT_TTL_SECONDS = { default: 30 * DAY_SECONDS, min: 60, max: 365 * DAY_SECONDS } as const;
/** Contract §3: access tokens live 15 minutes. */
export const ACCESS_TOKEN_TTL_MS = 900_000;
/** Contract §3: refresh tokens live 30 days. */
export const REFRESH_TOKEN_TTL_MS = 30 * DAY_MS;
/** Contract §3: a refresh may be repeated for 60 s with the same key. */
export const REFRESH_REPEAT_MS = 60_000;
/** Unexpired identity tokens of one agent: each may have to stand in the revocation list one day. */
export const LIVE_AITS_MAX = 1_000;
/** Signing keys kept at once, so that the keys document stays far below what its readers accept. */
export const SIGNING_KEYS_MAX = 256;
/** How often a write is tried again when the registry moved between reading and writing. */
export const ATTEMPTS_MAX = 8;

/** What every part of the registry works with. */
export type Registry = {
  readonly db: D1Database;
  /** `iss` of everything that is signed. */
  readonly issuer: string;
  /** Host name of the issuer: the authority of every DID. */
  readonly authority: string;
  readonly signingSecret: string;
  /** How long a reader may serve a revocation list, which must outlive that. */
  readonly crlMaxAgeMs: number;
  readonly now: () => number;
};

/**
 * @param around the database, the settings and the clock (milliseconds since 1970)
 * @throws ProxyError PROXY_NOT_FOUND while another registry is configured: this one then does not exist
 */
export function registryOf(around: { db: D1Database; config: Config; now: () => number }): Registry {
  const { db, config, now } = around;
  if (config.registryUrl !== "embedded") {
    throw new ProxyError("PROXY_NOT_FOUND", { reason: "the embedded registry is off: REGISTRY_URL names another one" });
  }
  const authority = issuerHost(config.registryIssuer);
  if (authority === null || config.registrySigningSecret === null) {
    throw new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
      reason: "the embedded registry needs REGISTRY_ISSUER and REGISTRY_SIGNING_SECRET",
    });
  }
  return {
    db,
    issuer: config.registryIssuer,
    authority,
    signingSecret: config.registrySigningSecret,
    crlMaxAgeMs: config.crlMaxAgeMs,
    now,
  };
}

/**
 * What has to be looked at again where a batch was undone: the registry moved, or the caller's authority ended.
 *
 * @throws ProxyError PROXY_AUTH_DEPENDENCY_UNAVAILABLE for any other reason, which trying again would not change
 */
export function assertMoved(undone: Undone): void {
  if (typeof undone === "object" && "unique" in undone) throw storeFailure(new Error(`not unique: ${undone.unique}`));
}

/** @returns the answer where the registry changed under every attempt: other writes won each time */
export function contended(): ProxyError {
  return new ProxyError("PROXY_AUTH_DEPENDENCY_UNAVAILABLE", {
    reason: "the registry changed under every attempt",
    retryAfterMs: 1_000,
  });
}
