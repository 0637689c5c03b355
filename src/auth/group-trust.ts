/**
 * Stage 5 for a send in a group: membership of both stands for pairing. One list of members serves everybody who sends in the group,
 * under the rules of a pair: an old one only while D1 fails or somebody is reading it again, and whoever is not on it is looked up
 * anew, so that a newcomer is in at the next request. What an old list would let in is stopped by the fences in the gates, which
 * also refuse what is sent to all by a list that lacks somebody.
 */
import {
  type CachedCall,
  cachedCall,
  type CallFailure,
  type CallScope,
  loadNow,
  type Served,
} from "../resilience/cached-call.ts";
import type { Dependency } from "../resilience/dependency.ts";
import { type CacheState, createStaleCache, type Freshness } from "../resilience/stale-cache.ts";
import type { Membership } from "../trust/groups/rows.ts";
import type { AgentDid } from "../wire/did.ts";
import type { GroupId } from "../wire/group-id.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { type Refusal, refusal } from "./reasons.ts";

/** By which epoch of a group a send was judged, and whom it goes to. */
export type GroupVerdict = {
  readonly epoch: number;
  readonly recipients: readonly AgentDid[];
  readonly cache: CacheState;
};

/** A send in a group: to one other member, or to all of them (null). */
export type GroupSend = { readonly sender: AgentDid; readonly groupId: GroupId; readonly recipient: AgentDid | null };

export type GroupTrust = {
  /** @param how.fresh asks the store whatever is remembered, after a gate has said that it is out of date */
  judge(send: GroupSend, scope: CallScope, how?: { fresh: boolean }): Promise<Result<GroupVerdict, Refusal>>;
  forget(groupId: GroupId): void;
};

export type GroupTrustDeps = {
  readonly dependency: Dependency;
  readonly freshness: Freshness;
  /** Reads the store at its primary, null for no such group; throws when it fails. */
  readonly lookUp: (groupId: GroupId) => Promise<Membership | null>;
};

/** Groups remembered in this isolate, each with at most 100 members. */
const GROUPS_REMEMBERED = 2_000;
/** Not remembered at all. */
const NEVER: Freshness = { freshMs: 0, revalidateMs: 0, staleMs: 0 };

/** Whether it was asked for before this request came. */
const isRemembered = ({ cache, ageMs }: Served<unknown>): boolean => cache === "hit" || cache === "stale" || ageMs > 0;

/** @returns what a look-up that gave nothing is to the caller */
export function trustFailure({ reason, retryAfterMs }: CallFailure): Refusal {
  return reason === "busy" ? { reason: "trust-overloaded", retryAfterMs } : refusal("trust-unavailable");
}

/** @returns the judge, with its cache, behind the breaker that pairs have as well */
export function createGroupTrust({ dependency, freshness, lookUp }: GroupTrustDeps): GroupTrust {
  const cache = createStaleCache<Membership | null>({
    maxEntries: GROUPS_REMEMBERED,
    isNegative: (membership) => membership === null,
    freshness,
  });

  return {
    async judge({ sender, groupId, recipient }, scope, how = { fresh: false }) {
      const call: CachedCall<Membership | null> = {
        dependency,
        cache,
        key: groupId,
        refresh: "foreground",
        scope,
        async load() {
          const membership = await lookUp(groupId);
          return ok(membership === null ? { value: null, freshness: NEVER } : { value: membership });
        },
      };
      const isIn = (membership: Membership | null): membership is Membership =>
        membership !== null &&
        membership.members.has(sender) &&
        (recipient === null || membership.members.has(recipient));

      let served = how.fresh ? await loadNow(call) : await cachedCall(call);
      // Whoever is missing may have come since the list was read.
      if (served.ok && isRemembered(served.value) && !isIn(served.value.value)) served = await loadNow(call);
      if (!served.ok) return err(trustFailure(served.error));
      const { value, cache: state } = served.value;
      if (value === null) cache.delete(groupId);
      if (!isIn(value)) return err(refusal("group-not-trusted"));
      const recipients = recipient === null ? [...value.members].filter((member) => member !== sender) : [recipient];
      return ok({ epoch: value.epoch, recipients, cache: state });
    },

    forget: (groupId) => cache.delete(groupId),
  };
}
