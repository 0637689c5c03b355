/** The registry's revocation list: verified, never older than one seen before, never gone once one was seen. */
import {
  type CachedCall,
  cachedCall,
  type CallFailure,
  type Loaded,
  type LoadFailure,
  loadNow,
  servedFromMemory,
} from "../resilience/cached-call.ts";
import type { Dependency } from "../resilience/dependency.ts";
import { createStaleCache, type CacheState } from "../resilience/stale-cache.ts";
import { CRL_NOT_FOUND, CRL_PATH } from "../wire/registry-documents.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { findCrlJws } from "./crl-document.ts";
import { createNewestSeen } from "./crl-newest.ts";
import { type List, type Revocation, revocationsOf, type VerifiedList, verifyList } from "./crl-verification.ts";
import { createJtiSet } from "./jti-set.ts";
import type { Keys } from "./keys.ts";
import { createKvCopy, createKvMark } from "./kv-copy.ts";
import { askRegistry, parseJson } from "./request.ts";
import { type RegistrySettings, type RequestScope, scopeUntil } from "./scope.ts";

export type Crl = {
  /**
   * Whether the token of this id is revoked, by the newest list that may be used. `too-old`: there was a list, it is
   * past its maximum age, and the setting is fail-closed; `unavailable`: there never was one in this isolate.
   */
  isRevoked(
    jti: string,
    scope: RequestScope,
  ): Promise<Result<{ revoked: boolean; cache: CacheState }, "unavailable" | "too-old">>;
  /**
   * Fetches the list now, for whoever acts on its entries rather than asks about one. What it brings is used by
   * `isRevoked` from then on. `iat` in seconds; null where the registry has never signed a list.
   */
  fetchList(
    scope: RequestScope,
  ): Promise<Result<{ iat: number | null; revocations: readonly Revocation[] }, CallFailure>>;
  /** Sees to it that there is a list, for `/ready`. */
  warm(scope: RequestScope): Promise<Result<null, CallFailure>>;
  /** Age in milliseconds of the list held, past its maximum included; null when there never was one. */
  ageMs(nowMs: number): number | null;
  /** Whether the list held may be used at all. */
  isUsable(nowMs: number): boolean;
};

/** A list is at most this long: some 120,000 entries. */
export const CRL_MAX_BYTES = 24 * 1_024 * 1_024;
/** What is read of a refusal to see its code. */
const NOT_FOUND_MAX_BYTES = 4_096;
/** Served past every age under fail-open, the copy is kept as long as anyone may repair the registry. */
const FAIL_OPEN_KEEP_MS = 7 * 86_400_000;
const WARN_EVERY_MS = 60_000;
const DOCUMENT = "crl";

/** @returns the list with its cache, its copy in KV and the mark of the newest one seen */
export function createCrl(settings: RegistrySettings, dependency: Dependency, keys: Keys): Crl {
  const isFailOpen = settings.crlStaleBehavior === "fail-open";
  const usableMs = isFailOpen ? Number.POSITIVE_INFINITY : settings.crlMaxAgeMs;
  const cache = createStaleCache<List>({
    maxEntries: 1,
    freshness: {
      freshMs: Math.min(settings.crlRefreshMs, usableMs),
      revalidateMs: usableMs,
      staleMs: usableMs,
    },
  });
  const owner = settings.registryIssuer;
  const copy = createKvCopy({
    name: "crl",
    owner,
    keepMs: isFailOpen ? FAIL_OPEN_KEEP_MS : settings.crlMaxAgeMs,
    settings,
  });
  const mark = createKvMark({ name: "crl-seen", owner, settings });

  const newest = createNewestSeen({ mark, issuer: owner });
  let lastGoodAtMs: number | null = null;
  let tooOldWarnedAtMs = Number.NEGATIVE_INFINITY;

  function callFor(scope: RequestScope, tell?: (verified: VerifiedList | null) => void): CachedCall<List> {
    return {
      dependency,
      cache,
      key: DOCUMENT,
      refresh: "background",
      scope,
      load: (signal) => load(scopeUntil(scope, signal), tell),
      copy: () => readCopy(scope),
    };
  }

  async function load(
    scope: RequestScope,
    tell?: (verified: VerifiedList | null) => void,
  ): Promise<Result<Loaded<List>, LoadFailure>> {
    const askedAtMs = scope.now();
    const answers = { 200: CRL_MAX_BYTES, 404: NOT_FOUND_MAX_BYTES };
    const answer = await askRegistry(scope, { path: CRL_PATH, answers }, scope.signal);
    if (!answer.ok) return answer;
    if (answer.value.status === 404) {
      const none = await acceptNone(answer.value.body, scope);
      if (!none.ok) return none;
      tell?.(null);
      lastGoodAtMs = askedAtMs;
      return ok({ value: none.value });
    }
    const jws = findCrlJws(answer.value.body);
    const verified = jws.ok ? await verifyList(jws.value, { keys, issuer: owner }, scope) : jws;
    if (!verified.ok) return err({ reason: `list: ${verified.error}` });
    const { list, head } = verified.value;
    const isFloorKnown = await newest.recall(scope);
    const problem = newest.problemOf(head, scope);
    if (problem !== null) return err({ reason: problem });
    lastGoodAtMs = askedAtMs;
    newest.seen(head.iat, scope);
    // By a list that may be older than one that others have seen, this isolate may go; others may not.
    if (isFloorKnown) scope.background(copy.write(scope, verified.value.jws, askedAtMs));
    tell?.(verified.value);
    return ok({ value: list });
  }

  /** "There is no list" is believed only while no signed one was ever seen from this issuer (contract §1). */
  async function acceptNone(body: Uint8Array, scope: RequestScope): Promise<Result<List, LoadFailure>> {
    if (codeOf(parseJson(body)?.value) !== CRL_NOT_FOUND) return err({ reason: "status 404" });
    if (newest.iat() !== null || (await mark.read(scope)) !== null) {
      scope.log.error("security.crl_withdrawn", { issuer: owner, heldIat: newest.iat() });
      return err({ reason: "the list was withdrawn" });
    }
    return ok({ jtis: createJtiSet(), iat: null });
  }

  /** The copy in KV, verified like one from the registry but for its `exp`: during an outage nobody renews it. */
  async function readCopy(scope: RequestScope): Promise<{ value: List; atMs: number } | null> {
    const found = await copy.read(scope);
    if (found === null) return null;
    const verified = await verifyList(found.body, { keys, issuer: owner }, scope);
    if (!verified.ok) {
      // Without keys nothing can be said against it, nor without the one that it names: it may be newer than those held.
      if (verified.error !== "unavailable" && verified.error !== "unknown-kid") copy.drop(scope, verified.error);
      return null;
    }
    const { list, head } = verified.value;
    await newest.recall(scope);
    if (newest.isOlder(head.iat)) return null;
    newest.seen(head.iat, scope);
    lastGoodAtMs = Math.max(lastGoodAtMs ?? 0, found.atMs);
    return { value: list, atMs: found.atMs };
  }

  function warnTooOld(scope: RequestScope): void {
    const nowMs = scope.now();
    if (nowMs - tooOldWarnedAtMs < WARN_EVERY_MS) return;
    tooOldWarnedAtMs = nowMs;
    scope.log.warn("registry.crl_too_old", {
      ageMs: lastGoodAtMs === null ? null : nowMs - lastGoodAtMs,
      maxAgeMs: settings.crlMaxAgeMs,
      behavior: settings.crlStaleBehavior,
    });
  }

  return {
    async isRevoked(jti, scope) {
      const call = callFor(scope);
      const inMemory = servedFromMemory(call);
      const served = inMemory === null ? await cachedCall(call) : ok(inMemory);
      if (!served.ok) {
        if (lastGoodAtMs === null) return err("unavailable");
        warnTooOld(scope);
        return err("too-old");
      }
      const { value, cache: state, ageMs } = served.value;
      if (ageMs >= settings.crlMaxAgeMs) warnTooOld(scope);
      return ok({ revoked: value.jtis.has(jti), cache: state });
    },

    async fetchList(scope) {
      let verified: VerifiedList | null = null;
      const loaded = await loadNow(callFor(scope, (told) => (verified = told)));
      if (!loaded.ok) return loaded;
      return ok({ iat: loaded.value.value.iat, revocations: verified === null ? [] : revocationsOf(verified) });
    },

    async warm(scope) {
      const served = await cachedCall(callFor(scope));
      return served.ok ? ok(null) : served;
    },

    ageMs(nowMs) {
      return lastGoodAtMs === null ? null : Math.max(0, nowMs - lastGoodAtMs);
    },

    isUsable(nowMs) {
      return cache.read(DOCUMENT, nowMs).phase !== "gone";
    },
  };
}

/** The code of an error document: of its own, or as the registry wraps it. */
function codeOf(body: unknown): unknown {
  if (typeof body !== "object" || body === null) return undefined;
  if ("code" in body) return body.code;
  return "error" in body ? codeOf(body.error) : undefined;
}
