/** The newest list ever seen of an issuer: nothing older is taken, by this isolate or by a new one. */
import { CLOCK_LEEWAY_SECONDS } from "../wire/registry-documents.ts";
import type { CrlHead } from "./crl-document.ts";
import type { KvMark } from "./kv-copy.ts";
import type { RequestScope } from "./scope.ts";

export type NewestSeen = {
  /** `iat` of the newest list seen, in seconds; null where none was. It outlives the list itself. */
  iat(): number | null;
  isOlder(iat: number): boolean;
  /** A new isolate has seen nothing: others have. @returns false when the store cannot say what */
  recall(scope: RequestScope): Promise<boolean>;
  /** A list has been taken; the mark in KV follows in the background. */
  seen(iat: number, scope: RequestScope): void;
  /** @returns why a verified list is not taken, or null */
  problemOf(head: CrlHead, scope: RequestScope): string | null;
};

/** @param mark where isolates leave it for one another */
export function createNewestSeen({ mark, issuer }: { mark: KvMark; issuer: string }): NewestSeen {
  let newestIat: number | null = null;
  /** What KV is known to have of it. */
  let markedIat: number | null = null;
  let isRecalled = false;

  async function markSeen(iat: number, scope: RequestScope): Promise<void> {
    if (markedIat !== null && markedIat >= iat) return;
    if (await mark.raise(scope, iat)) markedIat = Math.max(markedIat ?? 0, iat);
  }

  return {
    iat: () => newestIat,
    isOlder: (iat) => newestIat !== null && iat < newestIat,

    async recall(scope) {
      if (isRecalled) return true;
      try {
        markedIat = await mark.read(scope);
        if (markedIat !== null) newestIat = Math.max(newestIat ?? markedIat, markedIat);
        isRecalled = true;
        return true;
      } catch (error) {
        scope.log.warn("registry.mark_unreadable", { reason: error instanceof Error ? error.name : typeof error });
        return false;
      }
    },

    seen(iat, scope) {
      newestIat = iat;
      scope.background(markSeen(iat, scope));
    },

    problemOf(head, scope) {
      const nowSeconds = scope.now() / 1_000;
      if (head.iat > nowSeconds + CLOCK_LEEWAY_SECONDS) return "the list is from the future";
      if (head.exp <= nowSeconds) return "the list has expired";
      if (newestIat === null || head.iat >= newestIat) return null;
      scope.log.error("security.crl_rolled_back", { issuer, heldIat: newestIat, offeredIat: head.iat });
      return "the list is older than one seen before";
    },
  };
}
