/** What the chain asks of the registry's client, and what a request brings to every such question. */
import type { CacheState } from "../resilience/stale-cache.ts";
import type { Deadline } from "../resilience/deadline.ts";
import type { Log } from "../telemetry/log.ts";
import type { Result } from "../wire/result.ts";

export type RequestScope = {
  /** Of the whole chain; each call has its own within it. */
  readonly deadline: Deadline;
  /** For work that outlives the answer. */
  readonly background: (work: Promise<unknown>) => void;
  readonly now: () => number;
  readonly log: Log;
};

export type RegistryKeys = {
  find(
    kid: string,
    scope: RequestScope,
  ): Promise<Result<{ key: CryptoKey; cache: CacheState }, "unknown-kid" | "revoked-kid" | "unavailable">>;
  /** Whether this key may still vouch for what it signed, as far as this isolate knows. */
  isActive(kid: string): boolean;
};

export type RegistryCrl = {
  isRevoked(
    jti: string,
    scope: RequestScope,
  ): Promise<Result<{ revoked: boolean; cache: CacheState }, "unavailable" | "too-old">>;
};

export type RegistryAccess = {
  validate(
    asked: { token: string; agentDid: string; aitJti: string },
    scope: RequestScope,
  ): Promise<
    Result<
      { verdict: "valid"; cache: CacheState; keyHash: string; validatedAtMs: number },
      { reason: "invalid" } | { reason: "unavailable"; keyHash: string }
    >
  >;
};

export type Registry = { readonly keys: RegistryKeys; readonly crl: RegistryCrl; readonly access: RegistryAccess };
