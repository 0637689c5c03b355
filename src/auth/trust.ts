/**
 * Stage 5, trust: may this sender send to this recipient. Reads D1 through a cache that serves an old answer only while
 * D1 fails or somebody is reading it again. A pair that is not trusted is never remembered, so a pairing works at the
 * next request; what a cached trust would let in after a removal is stopped by the fences in the gates.
 */
import type { BreakerSnapshot, BreakerTransition } from "../resilience/breaker.ts";
import { type CachedCall, cachedCall, type CallScope, loadNow } from "../resilience/cached-call.ts";
import { createDependency, type DependencyCall } from "../resilience/dependency.ts";
import { type CacheState, createStaleCache, type Freshness } from "../resilience/stale-cache.ts";
import type { Log } from "../telemetry/log.ts";
import type { Membership } from "../trust/groups/rows.ts";
import type { Trust } from "../trust/pairs.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { GROUP_HEADER, type GroupId, parseGroupId } from "../wire/group-id.ts";
import { err, ok, type Result } from "../wire/result.ts";
import { createGroupTrust, type GroupTrust, trustFailure } from "./group-trust.ts";
import type { SendTrust } from "./passed.ts";
import { type Refusal, refusal } from "./reasons.ts";

export const RECIPIENT_HEADER = "X-Claw-Recipient-Agent-Did";

export type TrustSettings = {
  readonly trustTtlMs: number;
  readonly trustMaxStaleMs: number;
  readonly storeTimeoutMs: number;
  readonly breakerFailures: number;
  readonly breakerWindowMs: number;
  readonly breakerOpenMs: number;
};

export type TrustDeps = {
  readonly settings: TrustSettings;
  /** Reads the store at its primary; throws when it fails. */
  readonly lookUp: (sender: AgentDid, recipient: AgentDid) => Promise<Trust>;
  /** Reads who is in a group, likewise; null where there is no such group. */
  readonly lookUpGroup: (groupId: GroupId) => Promise<Membership | null>;
  /** For what belongs to no request: each change of the breaker, once. */
  readonly log: Log;
  /** Called with each change of the breaker, and how each call ended: to be counted. */
  readonly onTransition?: (transition: BreakerTransition) => void;
  readonly onCall?: (call: DependencyCall) => void;
  /** Pairs remembered in this isolate. */
  readonly maxEntries?: number;
};

/** By which trust epoch a send was judged; the gates compare it with their fences. */
export type TrustVerdict = { readonly epoch: number; readonly cache: CacheState };

export type TrustStage = {
  /** @param how.fresh asks the store whatever is remembered, after a gate has said that it is out of date */
  judge(
    sender: AgentDid,
    recipient: AgentDid,
    scope: CallScope,
    how?: { fresh: boolean },
  ): Promise<Result<TrustVerdict, Refusal>>;
  forget(sender: AgentDid, recipient: AgentDid): void;
  /** Sends in a group, by membership. */
  readonly groups: GroupTrust;
  breaker(): BreakerSnapshot;
  /** Pairs remembered, and so served while the store fails. */
  size(): number;
};

const PAIRS_REMEMBERED = 50_000;
/** A pair in use is read again in the background when this share of its time is over. */
const REFRESH_AHEAD_RATIO = 0.75;
/** Not remembered at all. */
const NEVER: Freshness = { freshMs: 0, revalidateMs: 0, staleMs: 0 };

/** @returns the stage, with its cache and its breaker before the store */
export function createTrustStage(deps: TrustDeps): TrustStage {
  const { settings, lookUp, log, maxEntries = PAIRS_REMEMBERED } = deps;
  const { trustTtlMs: freshMs, storeTimeoutMs } = settings;
  const staleMs = Math.max(freshMs, settings.trustMaxStaleMs);
  const freshness: Freshness = {
    refreshAheadMs: Math.floor(freshMs * REFRESH_AHEAD_RATIO),
    freshMs,
    // Only while the one request that reads it again is out may the others go by the old answer.
    revalidateMs: Math.min(freshMs + storeTimeoutMs, staleMs),
    staleMs,
  };
  const cache = createStaleCache<Trust>({
    maxEntries,
    // A pair that is not trusted is kept for no time at all, and still must not push out one that is.
    isNegative: ({ trusted }) => !trusted,
    freshness,
  });
  const dependency = createDependency({
    name: "trust",
    timeoutMs: storeTimeoutMs,
    breakerFailures: settings.breakerFailures,
    breakerWindowMs: settings.breakerWindowMs,
    breakerOpenMs: settings.breakerOpenMs,
    onCall: deps.onCall,
    onTransition: (transition) => {
      deps.onTransition?.(transition);
      const { from, to, failures, retryAtMs } = transition;
      const fields = { dependency: "trust", from, to, failures, retryAtMs };
      if (to === "open") log.warn("breaker.changed", fields);
      else log.info("breaker.changed", fields);
    },
  });

  return {
    async judge(sender, recipient, scope, how = { fresh: false }) {
      const key = pairKey(sender, recipient);
      const call: CachedCall<Trust> = {
        dependency,
        cache,
        key,
        refresh: "foreground",
        scope,
        async load() {
          const trust = await lookUp(sender, recipient);
          return ok(trust.trusted ? { value: trust } : { value: trust, freshness: NEVER });
        },
      };
      const served = how.fresh ? await loadNow(call) : await cachedCall(call);
      if (!served.ok) return err(trustFailure(served.error));
      const { value, cache: state } = served.value;
      if (value.trusted) return ok({ epoch: value.epoch, cache: state });
      cache.delete(key);
      return err(refusal("peer-not-trusted"));
    },

    forget: (sender, recipient) => cache.delete(pairKey(sender, recipient)),
    groups: createGroupTrust({ dependency, freshness, lookUp: deps.lookUpGroup }),
    breaker: () => dependency.breaker.snapshot(),
    size: () => cache.size(),
  };
}

/** To whom a send goes: to an agent by pairing, to one in a group, or to all of a group. */
export type Addressee =
  | { readonly kind: "pair"; readonly recipientDid: AgentDid }
  | { readonly kind: "member"; readonly groupId: GroupId; readonly recipientDid: AgentDid }
  | { readonly kind: "group"; readonly groupId: GroupId };

/** The addressee of a send, by its headers. */
export function readAddressee(headers: Headers, sender: AgentDid): Result<Addressee, Refusal> {
  const group = headers.get(GROUP_HEADER);
  const groupId = group === null ? null : parseGroupId(group);
  if (group !== null && groupId === null) return err(refusal("group-malformed"));
  if (groupId !== null && !headers.has(RECIPIENT_HEADER)) return ok({ kind: "group", groupId });
  const recipient = readRecipient(headers, sender);
  if (!recipient.ok) return recipient;
  const recipientDid = recipient.value;
  return ok(groupId === null ? { kind: "pair", recipientDid } : { kind: "member", groupId, recipientDid });
}

/** The recipient of a send, by its header. */
export function readRecipient(headers: Headers, sender: AgentDid): Result<AgentDid, Refusal> {
  const text = headers.get(RECIPIENT_HEADER);
  if (text === null || text === "") return err(refusal("recipient-missing"));
  const recipient = parseAgentDid(text);
  if (recipient === null) return err(refusal("recipient-malformed"));
  return recipient === sender ? err(refusal("recipient-is-sender")) : ok(recipient);
}

/**
 * Judges a send: by pairing, or by the members of the group that it is sent in.
 *
 * @param how.fresh asks the store whatever is remembered
 */
export async function judgeSend(
  stage: TrustStage,
  sender: AgentDid,
  to: Addressee,
  scope: CallScope,
  how?: { fresh: boolean },
): Promise<Result<{ trust: SendTrust; cache: CacheState }, Refusal>> {
  if (to.kind === "pair") {
    const judged = await stage.judge(sender, to.recipientDid, scope, how);
    if (!judged.ok) return judged;
    const { epoch, cache } = judged.value;
    return ok({ trust: { kind: "pair", recipientDid: to.recipientDid, epoch }, cache });
  }
  const { groupId } = to;
  const recipient = to.kind === "member" ? to.recipientDid : null;
  const judged = await stage.groups.judge({ sender, groupId, recipient }, scope, how);
  if (!judged.ok) return judged;
  const { epoch, recipients: recipientDids, cache } = judged.value;
  const trust: SendTrust =
    recipient === null
      ? { kind: "group", groupId, recipientDids, epoch }
      : { kind: "member", groupId, recipientDid: recipient, epoch };
  return ok({ trust, cache });
}

/** Drops what was remembered and is out of date. */
export function forgetSend(stage: TrustStage, sender: AgentDid, judged: SendTrust): void {
  if (judged.kind === "pair") stage.forget(sender, judged.recipientDid);
  else stage.groups.forget(judged.groupId);
}

/** A pair has no direction, so both share one entry. */
function pairKey(a: AgentDid, b: AgentDid): string {
  return a < b ? `${a} ${b}` : `${b} ${a}`;
}
