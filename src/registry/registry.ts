/** The client of the registry: keys, revocation list, access validation, each behind a cache and a breaker of its own. */
import type { CallFailure } from "../resilience/cached-call.ts";
import type { BreakerSnapshot, BreakerTransition } from "../resilience/breaker.ts";
import { createDependency, type Dependency, type DependencyCall } from "../resilience/dependency.ts";
import type { Log } from "../telemetry/log.ts";
import type { Result } from "../wire/result.ts";
import { type Access, createAccess } from "./access.ts";
import { createCrl, type Crl } from "./crl.ts";
import { createKeys, type Keys } from "./keys.ts";
import type { RegistrySettings, RequestScope } from "./scope.ts";

export { externalRegistry } from "./request.ts";
export type { RegistryFetch, RegistrySettings, RequestScope } from "./scope.ts";

export type Registry = {
  keys: Keys;
  crl: Crl;
  access: Access;
  /** What `/ready` and the metrics show of each dependency. */
  status(nowMs: number): RegistryStatus;
  /** Fetches keys and list where this isolate has none, so that `status` speaks of the registry and not of a start. */
  warm(scope: RequestScope): Promise<{ keys: Result<null, CallFailure>; crl: Result<null, CallFailure> }>;
};

export type DependencyStatus = {
  breaker: BreakerSnapshot;
  /** Age in milliseconds of what is held; null when nothing is. */
  ageMs: number | null;
  /** Whether a request could be served by what is held. */
  usable: boolean;
};

export type RegistryStatus = {
  keys: DependencyStatus;
  crl: DependencyStatus;
  /** Held per agent, so there is no age of the whole. */
  access: { breaker: BreakerSnapshot };
};

/** Keys and list are one document each: a second request may fetch it when the first hangs, and no more. */
const DOCUMENT_CALLS_IN_FLIGHT = 2;
/** A request that finds them being fetched waits so long for them to come. */
const DOCUMENT_PATIENCE_MS = 2_500;

/**
 * One per isolate and configuration; it keeps bounded caches and breakers and nothing of any request.
 *
 * @param deps.log for what belongs to no request: each change of a breaker, once
 * @param deps.onTransition called with the same, to be counted
 * @param deps.onCall called with how each call ended, to be counted
 */
export function createRegistry(deps: {
  settings: RegistrySettings;
  log: Log;
  onTransition?: (transition: BreakerTransition) => void;
  onCall?: (call: DependencyCall) => void;
}): Registry {
  const { settings } = deps;
  const shared = {
    timeoutMs: settings.registryTimeoutMs,
    breakerFailures: settings.breakerFailures,
    breakerWindowMs: settings.breakerWindowMs,
    breakerOpenMs: settings.breakerOpenMs,
    onCall: deps.onCall,
    onTransition: (transition: BreakerTransition): void => {
      logTransition(deps.log, transition);
      deps.onTransition?.(transition);
    },
  };
  const document = { maxInFlight: DOCUMENT_CALLS_IN_FLIGHT, patienceMs: DOCUMENT_PATIENCE_MS };
  const dependencies = {
    keys: createDependency({ ...shared, ...document, name: "keys", copyTimeoutMs: settings.storeTimeoutMs }),
    // To verify its copy, a list may have to fetch the keys first.
    crl: createDependency({
      ...shared,
      ...document,
      name: "crl",
      copyTimeoutMs: 2 * settings.storeTimeoutMs + settings.registryTimeoutMs,
    }),
    access: createDependency({ ...shared, name: "access" }),
  };
  const keys = createKeys(settings, dependencies.keys);
  const crl = createCrl(settings, dependencies.crl, keys);
  const access = createAccess(settings, dependencies.access);

  return {
    keys,
    crl,
    access,

    status(nowMs) {
      const keysAgeMs = keys.ageMs(nowMs);
      return {
        keys: { ...breakerOf(dependencies.keys), ageMs: keysAgeMs, usable: keysAgeMs !== null },
        crl: { ...breakerOf(dependencies.crl), ageMs: crl.ageMs(nowMs), usable: crl.isUsable(nowMs) },
        access: breakerOf(dependencies.access),
      };
    },

    async warm(scope) {
      // The list is verified by the keys, so they come first.
      const keysWarm = await keys.warm(scope);
      return { keys: keysWarm, crl: await crl.warm(scope) };
    },
  };
}

function breakerOf(dependency: Dependency): { breaker: BreakerSnapshot } {
  return { breaker: dependency.breaker.snapshot() };
}

/** One line for each change, and the only one: the refusals while a breaker is open are not logged. */
export function logTransition(log: Log, transition: BreakerTransition): void {
  const { dependency, from, to, failures, retryAtMs } = transition;
  const fields = { dependency, from, to, failures, retryAtMs };
  if (to === "open") log.warn("breaker.changed", fields);
  else log.info("breaker.changed", fields);
}
