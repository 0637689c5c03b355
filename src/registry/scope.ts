import type { Config } from "../config.ts";
import type { CallScope } from "../resilience/cached-call.ts";
import type { Log } from "../telemetry/log.ts";

/** How the registry is reached: over the network, or in this Worker where it is embedded. */
export type RegistryFetch = (
  path: string,
  init: RegistryRequestInit | undefined,
  signal: AbortSignal,
) => Promise<Response>;

export type RegistryRequestInit = { method?: string; headers?: Record<string, string>; body?: string };

/** What one request lends to the registry's client. Nothing of it is kept when the request has ended. */
export type RequestScope = CallScope & {
  log: Log;
  fetch: RegistryFetch;
  /** The second level of the caches; null where none is bound. */
  kv: KVNamespace | null;
};

/** The settings of this folder (contract §6). */
export type RegistrySettings = Pick<
  Config,
  | "registryUrl"
  | "registryIssuer"
  | "registryTimeoutMs"
  | "storeTimeoutMs"
  | "keysTtlMs"
  | "keysMaxStaleMs"
  | "crlRefreshMs"
  | "crlMaxAgeMs"
  | "crlStaleBehavior"
  | "accessTtlMs"
  | "accessMaxStaleMs"
  | "breakerFailures"
  | "breakerWindowMs"
  | "breakerOpenMs"
>;

/** The same scope, waiting no longer than `signal`: for a call within a call. */
export function scopeUntil(scope: RequestScope, signal: AbortSignal): RequestScope {
  return {
    now: () => scope.now(),
    background: (work) => scope.background(work),
    log: scope.log,
    fetch: scope.fetch,
    kv: scope.kv,
    signal,
  };
}
