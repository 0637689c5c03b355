/** The second level of a cache: one document in Workers KV, which outlives the isolate. */
import * as z from "zod/mini";
import { DeadlineExceeded, withDeadline } from "../resilience/deadline.ts";
import { sha256Base64Url } from "../wire/proof.ts";
import type { RegistrySettings, RequestScope } from "./scope.ts";

export type KvCopy = {
  /** The stored document and the moment at which the registry gave it; null when there is none that can be read. */
  read(scope: RequestScope): Promise<{ body: Uint8Array; atMs: number } | null>;
  /** Stores a document. Never throws: a second level that cannot be written is said and left. */
  write(scope: RequestScope, body: Uint8Array, atMs: number): Promise<void>;
  /** Says that what was read is bad, and removes it in the background. */
  drop(scope: RequestScope, reason: string): void;
};

/** The highest number ever seen of something, which must not be forgotten when the document itself has run out. */
export type KvMark = {
  /** Null when there never was one. @throws when the store cannot say */
  read(scope: RequestScope): Promise<number | null>;
  /** Raises it, and never lowers it. Never throws: false when the store did not take it, which is said. */
  raise(scope: RequestScope, to: number): Promise<boolean>;
};

/** What is kept, and whose it is: what belongs to one registry or issuer never stands for another's. */
type Place = { name: string; owner: string };

const metadataSchema = z.object({ atMs: z.int().check(z.nonnegative()) });

/** KV keeps nothing for less than a minute. */
const MIN_TTL_SECONDS = 60;
/** How far the clock of the isolate that wrote may be ahead of this one's. */
const CLOCK_TOLERANCE_MS = 60_000;
/** After a look that found nothing, the next one: a cold isolate under load must not ask for every request. */
const LOOK_AGAIN_MS = 10_000;

/**
 * @param options.keepMs how long a copy may be of use; KV forgets it afterwards
 */
export function createKvCopy(options: Place & { keepMs: number; settings: RegistrySettings }): KvCopy {
  const { name, settings } = options;
  const expirationTtl = Math.max(MIN_TTL_SECONDS, Math.ceil(options.keepMs / 1_000));
  let lookAgainAtMs = Number.NEGATIVE_INFINITY;

  return {
    async read(scope) {
      const { kv } = scope;
      if (kv === null || scope.now() < lookAgainAtMs) return null;
      const key = await keyOf(options);
      const stored = await lookedUp(scope, () => kv.getWithMetadata(key, "arrayBuffer"));
      if (stored.value === null) {
        lookAgainAtMs = scope.now() + LOOK_AGAIN_MS;
        return null;
      }
      const metadata = metadataSchema.safeParse(stored.metadata);
      if (!metadata.success || metadata.data.atMs > scope.now() + CLOCK_TOLERANCE_MS) {
        lookAgainAtMs = scope.now() + LOOK_AGAIN_MS;
        drop(scope, "no sound time");
        return null;
      }
      return { body: new Uint8Array(stored.value), atMs: Math.min(metadata.data.atMs, scope.now()) };
    },

    async write(scope, body, atMs) {
      const { kv } = scope;
      if (kv === null) return;
      try {
        const key = await keyOf(options);
        await inTime(settings, () => kv.put(key, body, { expirationTtl, metadata: { atMs } }));
      } catch (error) {
        scope.log.warn("registry.copy_not_written", { copy: name, ...failureFields(error) });
      }
    },

    drop,
  };

  /** A look in progress is no look that found nothing: whoever comes meanwhile looks as well, bounded by slots. */
  async function lookedUp<T>(scope: RequestScope, look: () => Promise<T>): Promise<T> {
    try {
      return await inTime(settings, look);
    } catch (error) {
      lookAgainAtMs = scope.now() + LOOK_AGAIN_MS;
      throw error;
    }
  }

  function drop(scope: RequestScope, reason: string): void {
    scope.log.error("registry.copy_dropped", { copy: name, reason });
    scope.background(remove(scope));
  }

  async function remove(scope: RequestScope): Promise<void> {
    const { kv } = scope;
    if (kv === null) return;
    try {
      const key = await keyOf(options);
      await inTime(settings, () => kv.delete(key));
    } catch (error) {
      scope.log.warn("registry.copy_not_removed", { copy: name, ...failureFields(error) });
    }
  }
}

/** @returns a number in KV that is only ever raised */
export function createKvMark(options: Place & { settings: RegistrySettings }): KvMark {
  const { name, settings } = options;
  return {
    read: markIn,

    async raise(scope, to) {
      const { kv } = scope;
      if (kv === null) return true;
      try {
        const key = await keyOf(options);
        if (((await markIn(scope)) ?? -1) < to) await inTime(settings, () => kv.put(key, String(to)));
        return true;
      } catch (error) {
        scope.log.warn("registry.copy_not_written", { copy: name, ...failureFields(error) });
        return false;
      }
    },
  };

  async function markIn({ kv }: RequestScope): Promise<number | null> {
    if (kv === null) return null;
    const key = await keyOf(options);
    const text = await inTime(settings, () => kv.get(key));
    const number = Number(text);
    // Something stands there, whatever it says.
    return text === null ? null : Number.isSafeInteger(number) ? number : 0;
  }
}

async function keyOf({ name, owner }: Place): Promise<string> {
  return `registry/v1/${name}/${await sha256Base64Url(new TextEncoder().encode(owner))}`;
}

function inTime<T>(settings: RegistrySettings, work: () => Promise<T>): Promise<T> {
  return withDeadline(settings.storeTimeoutMs, work);
}

function failureFields(error: unknown): { reason: string } {
  if (error instanceof DeadlineExceeded) return { reason: "timeout" };
  return { reason: error instanceof Error ? error.name : typeof error };
}
