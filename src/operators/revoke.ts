/**
 * `operator/revoke`, with the guarantee of contract §5. The end is committed first, with the fencing token that undoes every later
 * batch of the key; then what was made with it ends: operators, invites, API keys; and the answer waits until no lease is left.
 */
import { and, eq, inArray, isNull, sql } from "drizzle-orm";
import { auditOfEffectStatement } from "../audit/entry.ts";
import { ENDED_EPOCH } from "../authority/names.ts";
import { operatorAuthority, type OperatorPrincipal } from "../authority/operator.ts";
import type { CallContext } from "../call/context.ts";
import { REMOTE_CALL_TIMEOUT_MS, callRemoteGate } from "../call/remote-gate.ts";
import { commitFenced } from "../database/batch.ts";
import { raiseStatements } from "../database/fencing.ts";
import { readAll } from "../database/read.ts";
import { apiKeys, invites, operators } from "../database/schema.ts";
import { query, type Statement } from "../database/statement.ts";
import { DeadlineExceeded, withDeadline } from "../resilience/deadline.ts";
import { ProxyError } from "../wire/problem.ts";
import { LEASES_OVER_MS } from "./lease.ts";
import { findOperator, madeBy } from "./store.ts";

/** Contract §5: in this time, or `DRAIN_TIMEOUT`. */
const REVOCATION_MS = 5_000;
const INVITES_AT_ONCE = 40;
const KEYS_AT_ONCE = 6;

export type RevokedOperator = {
  operatorId: string;
  revokedAtMs: number;
  /** What was made with the key, and has ended with it by this call. */
  ended: { operators: number; invites: number; apiKeys: number };
};

/**
 * Ends an operator's key and all that was made with it. May be repeated: after DRAIN_TIMEOUT the repetition finishes what the first
 * call began.
 *
 * @throws ProxyError PROXY_NOT_FOUND for an operator that is not there; DRAIN_TIMEOUT where the guarantee could not be reached in
 *         5 s, the end itself stays
 */
export async function revokeOperator(ctx: CallContext, operatorId: string): Promise<RevokedOperator> {
  const caller = ctx.principal;
  if (caller.kind !== "operator") throw new ProxyError("PROXY_AUTH_FORBIDDEN");
  const found = await findOperator(ctx.db, operatorId);
  if (found === null) throw new ProxyError("PROXY_NOT_FOUND", { reason: "no such operator" });
  const nowMs = ctx.now();
  try {
    return await withDeadline(REVOCATION_MS, async () => {
      const ended = await endWithDescendants(ctx, caller, operatorId, nowMs);
      const [invitesEnded, keysEnded] = await Promise.all([
        endInvites(ctx, ended.makers, nowMs),
        endApiKeys(ctx, caller, ended.makers),
        new Promise((resolve) => setTimeout(resolve, LEASES_OVER_MS)),
      ]);
      return {
        operatorId,
        revokedAtMs: found.revokedAtMs ?? nowMs,
        ended: { operators: ended.descendants, invites: invitesEnded, apiKeys: keysEnded },
      };
    });
  } catch (error) {
    if (!(error instanceof DeadlineExceeded)) throw error;
    throw new ProxyError("DRAIN_TIMEOUT", {
      reason: "what the operator made did not end in time",
      retryAfterMs: 1_000,
    });
  }
}

/** From maker to made: once a maker's token is raised nothing more can be made with it, so what is read then is all of it. */
async function endWithDescendants(
  ctx: CallContext,
  caller: OperatorPrincipal,
  operatorId: string,
  nowMs: number,
): Promise<{ makers: string[]; descendants: number }> {
  const seen = new Set<string>();
  let descendants = 0;
  let next = [operatorId];
  while (next.length > 0) {
    // oxlint-disable-next-line no-await-in-loop -- from maker to made
    const ended = await endKeys(ctx, next, nowMs);
    if (seen.size > 0) descendants += ended;
    if (caller.id !== null && next.includes(caller.id)) ctx.authority.revokedItself(ENDED_EPOCH);
    for (const id of next) seen.add(id);
    // oxlint-disable-next-line no-await-in-loop -- as above
    next = (await madeBy(ctx.db, next)).filter((id) => !seen.has(id));
  }
  return { makers: [...seen].map(operatorAuthority), descendants };
}

/** @returns how many of them had not ended before */
async function endKeys(ctx: CallContext, operatorIds: readonly string[], nowMs: number): Promise<number> {
  const ends = operatorIds.flatMap((id): Statement<D1Result>[] => [
    query
      .update(operators)
      .set({ revokedAtMs: nowMs })
      .where(and(eq(operators.operatorId, id), isNull(operators.revokedAtMs))),
    auditOfEffectStatement(ctx, {
      action: "operator.revoke",
      subject: operatorAuthority(id),
      agentDid: null,
      result: "ok",
    }),
  ]);
  const raise = raiseStatements(operatorIds.map((id) => ({ authority: operatorAuthority(id), epoch: ENDED_EPOCH })));
  const committed = await commitFenced(ctx.db, ctx.authority, [...raise, ...ends]);
  if (!committed.ok) throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "the operator's key has ended" });
  const updates = committed.value.slice(raise.length).filter((_result, at) => at % 2 === 0);
  return updates.reduce((ended, { meta }) => ended + (meta.changes > 0 ? 1 : 0), 0);
}

async function endInvites(ctx: CallContext, makers: readonly string[], nowMs: number): Promise<number> {
  const isMade = inArray(invites.createdBy, sql`(SELECT value FROM json_each(${JSON.stringify(makers)}))`);
  const select = query
    .select({ inviteId: invites.inviteId })
    .from(invites)
    .where(and(isMade, isNull(invites.revokedAtMs)))
    .limit(INVITES_AT_ONCE);
  let ended = 0;
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- a batch holds so many
    const found = await readAll(ctx.db.withSession("first-primary"), select);
    if (found.length === 0) return ended;
    const ends = found.flatMap(({ inviteId }): Statement<D1Result>[] => [
      query
        .update(invites)
        .set({ revokedAtMs: nowMs })
        .where(and(eq(invites.inviteId, inviteId), isNull(invites.revokedAtMs))),
      auditOfEffectStatement(ctx, {
        action: "invite.revoke",
        subject: `invite:${inviteId}`,
        agentDid: null,
        result: "ok",
        details: { because: "operator.revoke" },
      }),
    ]);
    // oxlint-disable-next-line no-await-in-loop -- as above
    const committed = await commitFenced(ctx.db, null, ends);
    if (!committed.ok) throw new ProxyError("PROXY_CONFLICT");
    ended += found.length;
  }
}

/** Each in the gate of its agent, where all that descends from it ends too. */
async function endApiKeys(ctx: CallContext, caller: OperatorPrincipal, makers: readonly string[]): Promise<number> {
  const isMade = inArray(apiKeys.maker, sql`(SELECT value FROM json_each(${JSON.stringify(makers)}))`);
  const select = query.select({ apiKeyId: apiKeys.apiKeyId, agentDid: apiKeys.agentDid }).from(apiKeys).where(isMade);
  const left = await readAll(ctx.db.withSession("first-primary"), select);
  const { length } = left;
  const { requestId, origin } = ctx;
  // The caller may have ended itself by this call, and still finishes it.
  const by: OperatorPrincipal = { ...caller, isRevocable: false };
  const request = {
    caller: { kind: "operator" as const, principal: by },
    surface: "rpc" as const,
    requestId,
    origin,
    bookmark: null,
  };
  const endOneByOne = async (): Promise<void> => {
    for (let key = left.shift(); key !== undefined; key = left.shift()) {
      const { agentDid, apiKeyId } = key;
      const calls = [{ method: "apikey/delete", params: { apiKeyId } }];
      // oxlint-disable-next-line no-await-in-loop -- some at once, see below
      const answer = await callRemoteGate(
        ctx,
        () => ctx.gates.of(agentDid).call({ ...request, calls }),
        REMOTE_CALL_TIMEOUT_MS,
      );
      const reply = answer.ok ? answer.replies[0] : undefined;
      if (reply === undefined)
        throw new ProxyError("PROXY_INTERNAL", { reason: "the gate did not take the operator's call" });
      // Ended by somebody else meanwhile.
      if (!reply.ok && reply.code !== "PROXY_NOT_FOUND")
        throw new ProxyError(reply.code, { retryAfterMs: reply.retryAfterMs });
    }
  };
  await Promise.all(Array.from({ length: KEYS_AT_ONCE }, endOneByOne));
  return length;
}
