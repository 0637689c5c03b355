/** `operator/create` and `operator/list`, contract §5: keys of named operators, each with a role. */
import { auditStatement } from "../audit/entry.ts";
import { operatorAuthority, operatorSubject, ROOT } from "../authority/operator.ts";
import type { OperatorRole } from "../wire/operator-role.ts";
import { hashSecret, newSecret, SECRET_PREFIXES } from "../authority/secrets.ts";
import type { CallContext } from "../call/context.ts";
import { commitFenced, violates } from "../database/batch.ts";
import { operators } from "../database/schema.ts";
import { query } from "../database/statement.ts";
import { ProxyError } from "../wire/problem.ts";
import { newUlid } from "../wire/ulid.ts";

export type NewOperator = { name: string; role: OperatorRole; expiresAtMs: number | null };

/**
 * Makes an operator. The key is in the answer and nowhere else.
 *
 * @throws ProxyError PROXY_BAD_REQUEST for an end in the past; PROXY_CONFLICT for a name that another operator has
 */
export async function createOperator(
  ctx: CallContext,
  { name, role, expiresAtMs }: NewOperator,
): Promise<{ operatorId: string; key: string }> {
  const nowMs = ctx.now();
  if (ctx.principal.kind !== "operator") throw new ProxyError("PROXY_AUTH_FORBIDDEN");
  if (expiresAtMs !== null && expiresAtMs <= nowMs)
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "expiresAtMs: is in the past." });
  if (name.toLowerCase() === ROOT.name) throw nameTaken();
  const operatorId = newUlid(nowMs);
  const key = newSecret(SECRET_PREFIXES.operator);
  const row = query.insert(operators).values({
    operatorId,
    keySha256: await hashSecret(key),
    name,
    role,
    createdBy: operatorSubject(ctx.principal),
    createdAtMs: nowMs,
    expiresAtMs,
    lastUsedAtMs: null,
    revokedAtMs: null,
  });
  const audited = auditStatement(ctx, {
    action: "operator.create",
    subject: operatorAuthority(operatorId),
    agentDid: null,
    result: "ok",
    details: { name, role, expiresAtMs },
  });
  const committed = await commitFenced(ctx.db, ctx.authority, [row, audited]);
  if (committed.ok) return { operatorId, key };
  if (violates(committed.error, operators.name)) throw nameTaken();
  throw committed.error === "authority-ended"
    ? new ProxyError("PROXY_AUTH_REVOKED", { reason: "the operator's key has ended" })
    : new ProxyError("PROXY_CONFLICT");
}

function nameTaken(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", { detail: "name: is another operator's." });
}
