/** The registry's signing keys: fresh, stale while a refresh fails, and never one that was seen revoked. */
import {
  type CachedCall,
  cachedCall,
  loadNow,
  servedFromMemory,
  type CallFailure,
  type Loaded,
  type LoadFailure,
} from "../resilience/cached-call.ts";
import { lookUntil } from "../resilience/deadline.ts";
import type { Dependency } from "../resilience/dependency.ts";
import { createStaleCache, type CacheState } from "../resilience/stale-cache.ts";
import { decodeBase64Url } from "../wire/base64url.ts";
import { importEd25519PublicKey } from "../wire/proof.ts";
import { KEYS_PATH, parseKeysDocument, type RegistryKey } from "../wire/registry-documents.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { createKvCopy } from "./kv-copy.ts";
import { askRegistry, parseJson } from "./request.ts";
import type { RegistrySettings, RequestScope } from "./scope.ts";

export type KeyRefusal = "unknown-kid" | "revoked-kid" | "unavailable";

export type Keys = {
  /**
   * The active key of this name. A name that is not in the document forces a refresh, at most once per 30 s for the
   * whole isolate; `unavailable` when the registry fails and so nobody can say whether the key exists.
   */
  find(kid: string, scope: RequestScope): Promise<Result<{ key: CryptoKey; cache: CacheState }, KeyRefusal>>;
  /**
   * Whether the key is active by what this isolate holds, for tokens that it has verified before. Waits for nothing,
   * and begins a refresh in the background when one is due; false also for a document that is to be fetched anew first.
   */
  isActive(kid: string, scope: RequestScope): boolean;
  /** The document is known to be out of date: the next name that is not in it is asked for at once. */
  expectChange(): void;
  /** Sees to it that there are keys, for `/ready`. */
  warm(scope: RequestScope): Promise<Result<null, CallFailure>>;
  /** Age in milliseconds of the keys held, or null when there are none that may be used. */
  ageMs(nowMs: number): number | null;
};

type KeySet = { active: ReadonlyMap<string, CryptoKey>; revoked: ReadonlySet<string> };
type KeyAnswer = Result<{ key: CryptoKey; cache: CacheState }, KeyRefusal>;

/** Contract §1: a keys document is at most this long. */
export const KEYS_MAX_BYTES = 65_536;
/** Contract §2 and architecture: an unknown `kid` forces one refresh per this time and isolate. */
export const FORCED_REFRESH_EVERY_MS = 30_000;

/** For this share of its time, a document that is over is served while the next is fetched in the background. */
const GRACE_RATIO = 0.1;
const DOCUMENT = "keys";
/** A document of 64 KiB holds some 700 keys; this many that were once revoked are remembered over all documents. */
const REVOKED_KIDS_MAX = 2_048;

/** @returns the signing keys with their cache and their copy in KV; calls go through the dependency's breaker */
export function createKeys(settings: RegistrySettings, dependency: Dependency): Keys {
  const cache = createStaleCache<KeySet>({
    maxEntries: 1,
    freshness: {
      freshMs: settings.keysTtlMs,
      // So long nobody waits for the next document. One that is older still was asked for by nobody: a key of it may have
      // been revoked long ago, and only a registry that fails is a reason to go by it.
      revalidateMs: Math.min(Math.ceil(settings.keysTtlMs * (1 + GRACE_RATIO)), settings.keysMaxStaleMs),
      staleMs: settings.keysMaxStaleMs,
    },
  });
  const copy = createKvCopy({
    name: "keys",
    // Keys vouch for themselves by where they come from alone: another registry's must not be found here.
    owner: `${settings.registryUrl}\n${settings.registryIssuer}`,
    keepMs: settings.keysMaxStaleMs,
    settings,
  });
  // Revoked once is revoked permanently, whatever an older copy or a registry that was set back says afterwards.
  const seenRevoked = new Set<string>();
  let forced: ForcedRefresh | null = null;

  function callFor(scope: RequestScope): CachedCall<KeySet> {
    return {
      dependency,
      cache,
      key: DOCUMENT,
      refresh: "background",
      scope,
      load: (signal) => load(scope, signal),
      copy: () => readCopy(scope),
    };
  }

  async function load(scope: RequestScope, signal: AbortSignal): Promise<Result<Loaded<KeySet>, LoadFailure>> {
    const askedAtMs = scope.now();
    const answer = await askRegistry(scope, { path: KEYS_PATH, answers: { 200: KEYS_MAX_BYTES } }, signal);
    if (!answer.ok) return answer;
    const json = parseJson(answer.value.body);
    const read = json === null ? err("is not JSON") : await readDocument(json.value, scope);
    if (!read.ok) return err({ reason: `keys document ${read.error}` });
    scope.background(copy.write(scope, stored(read.value.keys, seenRevoked), askedAtMs));
    return ok({ value: read.value.keySet });
  }

  async function readCopy(scope: RequestScope): Promise<{ value: KeySet; atMs: number } | null> {
    const found = await copy.read(scope);
    if (found === null) return null;
    const json = parseJson(found.body);
    for (const kid of revokedKidsOf(json?.value)) remember(seenRevoked, kid);
    const read = json === null ? err("is not JSON") : await readDocument(json.value, scope);
    if (read.ok) return { value: read.value.keySet, atMs: found.atMs };
    copy.drop(scope, read.error);
    return null;
  }

  async function readDocument(
    value: unknown,
    scope: RequestScope,
  ): Promise<Result<{ keys: readonly RegistryKey[]; keySet: KeySet }, string>> {
    const document = parseKeysDocument(value);
    if (!document.ok) return document;
    for (const { index, problem } of document.value.malformed) {
      scope.log.warn("registry.key_left_out", { index, problem });
    }
    const { keys } = document.value;
    if (keys.length === 0) return err("has no usable key");
    for (const { kid, status } of keys) {
      if (status === "revoked") remember(seenRevoked, kid);
    }
    return ok({ keys, keySet: await importKeys(keys, scope) });
  }

  function judge(kid: string, keySet: KeySet, state: CacheState): KeyAnswer {
    if (seenRevoked.has(kid) || keySet.revoked.has(kid)) return err("revoked-kid");
    const key = keySet.active.get(kid);
    return key === undefined ? err("unknown-kid") : ok({ key, cache: state });
  }

  /** The document does not know the name: it may be newer than the document. */
  async function findAnew(kid: string, scope: RequestScope): Promise<KeyAnswer> {
    const nowMs = scope.now();
    if (forced === null || nowMs - forced.atMs >= FORCED_REFRESH_EVERY_MS) {
      const mine: ForcedRefresh = { atMs: nowMs, outcome: "in progress" };
      forced = mine;
      const loaded = await loadNow(callFor(scope));
      mine.outcome = loaded.ok ? "done" : "failed";
      // Nobody was asked, so the next one may.
      if (!loaded.ok && loaded.error.reason === "busy") forced = null;
      return loaded.ok ? judge(kid, loaded.value.value, "refreshed") : err("unavailable");
    }
    // Another request has just asked. Its promise is its own, so what it brings is looked for.
    const theirs = forced;
    await lookUntil(() => theirs.outcome !== "in progress", dependency.patienceMs, scope.signal);
    const held = cache.read(DOCUMENT, scope.now());
    if (held.phase === "gone") return err("unavailable");
    const answer = judge(kid, held.value, "refreshed");
    if (answer.ok || answer.error !== "unknown-kid") return answer;
    const isNewerDocument = theirs.outcome === "done" || scope.now() - held.ageMs > theirs.atMs;
    return isNewerDocument ? answer : err("unavailable");
  }

  return {
    async find(kid, scope) {
      const startedAtMs = scope.now();
      const served = await cachedCall(callFor(scope));
      if (!served.ok) return err("unavailable");
      const answer = judge(kid, served.value.value, served.value.cache);
      if (answer.ok || answer.error !== "unknown-kid") return answer;
      const { cache: state, ageMs } = served.value;
      // A document as new as this request: asking again would say the same. What another request has brought may be a copy.
      if (state === "miss" && scope.now() - ageMs >= startedAtMs) {
        forced = { atMs: scope.now(), outcome: "done" };
        return answer;
      }
      return findAnew(kid, scope);
    },

    isActive(kid, scope) {
      const served = servedFromMemory(callFor(scope));
      return served !== null && judge(kid, served.value, served.cache).ok;
    },

    expectChange() {
      forced = null;
    },

    async warm(scope) {
      const served = await cachedCall(callFor(scope));
      return served.ok ? ok(null) : served;
    },

    ageMs(nowMs) {
      const held = cache.read(DOCUMENT, nowMs);
      return held.phase === "gone" ? null : held.ageMs;
    },
  };
}

type ForcedRefresh = { readonly atMs: number; outcome: "in progress" | "done" | "failed" };

async function importKeys(keys: readonly RegistryKey[], scope: RequestScope): Promise<KeySet> {
  const active = new Map<string, CryptoKey>();
  const revoked = new Set<string>();
  for (const { kid, x, status } of keys) {
    if (status === "revoked") revoked.add(kid);
    else {
      const key = await importKey(x);
      if (key === null) scope.log.warn("registry.key_left_out", { problem: "x is refused by the platform" });
      else active.set(kid, key);
    }
  }
  return { active, revoked };
}

async function importKey(x: string): Promise<CryptoKey | null> {
  const bytes = decodeBase64Url(x);
  if (bytes === null) return null;
  try {
    return await importEd25519PublicKey(bytes);
  } catch (error) {
    if (error instanceof DOMException) return null;
    throw error;
  }
}

/** The document as it is kept: only what was well-formed, and every name that was ever seen revoked. */
function stored(keys: readonly RegistryKey[], seenRevoked: ReadonlySet<string>): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ keys, revokedKids: [...seenRevoked] }));
}

function revokedKidsOf(document: unknown): string[] {
  if (typeof document !== "object" || document === null || !("revokedKids" in document)) return [];
  const { revokedKids } = document;
  return Array.isArray(revokedKids) ? revokedKids.filter((kid) => typeof kid === "string") : [];
}

function remember(kids: Set<string>, kid: string): void {
  kids.add(kid);
  if (kids.size <= REVOKED_KIDS_MAX) return;
  const oldest = kids.values().next();
  if (oldest.done !== true) kids.delete(oldest.value);
}
