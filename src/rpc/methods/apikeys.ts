/** The methods of contract §5, API keys. */
import * as z from "zod/mini";
import { createApiKey } from "../../apikeys/create.ts";
import { deleteApiKey } from "../../apikeys/delete.ts";
import { type ApiKeyRow, findApiKeyById, listApiKeys, scopesOfRow } from "../../apikeys/store.ts";
import type { CallContext } from "../../call/context.ts";
import type { GateLocal } from "../../call/gate.ts";
import { callRemoteGate, REMOTE_CALL_TIMEOUT_MS } from "../../call/remote-gate.ts";
import { noteBookmark, readSession } from "../../database/session.ts";
import type { AgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { defineMethod, type Method } from "../method.ts";
import { PERMISSIONS } from "../permissions.ts";
import { agentDid, cursor, fenced, pageLimit, plainText, scopes, timeMs } from "../schemas.ts";

const PAGE_MAX = 100;

const apiKeyId = z.string().check(z.minLength(1), z.maxLength(64));
const name = plainText(1, 64);

const shownKey = z.object({
  apiKeyId: z.string(),
  serviceAccountId: z.string(),
  agentDid: z.string(),
  tenantId: z.string(),
  name: z.string(),
  scopes: z.array(z.string()),
  /** The authority that made it: `agent:…`, `device:…`, `apikey:…` or `operator`; null where no version recorded it. */
  maker: z.nullable(z.string()),
  creatorUserId: z.nullable(z.string()),
  creatorServiceAccountId: z.nullable(z.string()),
  createdAtMs: timeMs,
  expiresAtMs: z.nullable(timeMs),
  lastUsedAtMs: z.nullable(timeMs),
});
const deleted = z.object({
  apiKeyId: z.string(),
  deletedAtMs: timeMs,
  fenced,
  /** The shared secret in force was handed out to the key, or to what descends from it. */
  sharedSecretKnown: z.optional(z.literal(true)),
});

const create = defineMethod({
  name: "apikey/create",
  surface: "rpc",
  inGate: true,
  permission: PERMISSIONS["apikey/create"],
  params: z.object({ agentDid: z.optional(agentDid), name, scopes, expiresAtMs: z.optional(z.nullable(timeMs)) }),
  result: z.object({ apiKeyId: z.string(), serviceAccountId: z.string(), key: z.string() }),
  handler: async (ctx, params) => {
    const { gate, self } = requireGate(ctx);
    if (params.agentDid !== undefined && params.agentDid !== self) throw notYours();
    return createApiKey(ctx, gate, self, {
      name: params.name,
      scopes: params.scopes,
      expiresAtMs: params.expiresAtMs ?? null,
    });
  },
});

const list = defineMethod({
  name: "apikey/list",
  surface: "rpc",
  permission: PERMISSIONS["apikey/list"],
  params: z.object({
    agentDid: z.optional(agentDid),
    cursor: cursor(64),
    limit: pageLimit(PAGE_MAX),
  }),
  result: z.object({ apiKeys: z.array(shownKey), nextCursor: z.optional(z.string()) }),
  handler: async (ctx, params) => {
    if (params.agentDid !== undefined && ctx.agentDid !== null && params.agentDid !== ctx.agentDid) throw notYours();
    const limit = params.limit ?? PAGE_MAX;
    const session = readSession(ctx);
    const rows = await listApiKeys(session, {
      agentDid: ctx.agentDid ?? params.agentDid ?? null,
      cursor: params.cursor ?? null,
      limit,
    });
    noteBookmark(ctx, session);
    const shown = rows.slice(0, limit);
    const last = shown.at(-1);
    return {
      apiKeys: shown.map(shownApiKey),
      ...(rows.length > limit && last !== undefined ? { nextCursor: last.apiKeyId } : {}),
    };
  },
});

/** The operator names the key alone: its agent's gate is found by its row. */
const remove = defineMethod({
  name: "apikey/delete",
  surface: "rpc",
  permission: PERMISSIONS["apikey/delete"],
  params: z.object({ apiKeyId }),
  result: deleted,
  handler: async (ctx, params) => {
    if (ctx.gate !== null) return deleteApiKey(ctx, ctx.gate, params.apiKeyId);
    const row = await findApiKeyById(ctx.db, params.apiKeyId);
    if (row === null) throw notYours();
    return inGateOf(ctx, row.agentDid, params);
  },
});

export const apiKeyMethods: readonly Method[] = [create, list, remove];

async function inGateOf(
  ctx: CallContext,
  did: AgentDid,
  params: { apiKeyId: string },
): Promise<z.infer<typeof deleted>> {
  const { requestId, origin, principal } = ctx;
  if (principal.kind !== "operator") throw new ProxyError("PROXY_AUTH_FORBIDDEN");
  const caller = { kind: "operator" as const, principal };
  const call = { caller, surface: "rpc" as const, requestId, origin, bookmark: null };
  const calls = [{ method: "apikey/delete", params }];
  const answer = await callRemoteGate(ctx, () => ctx.gates.of(did).call({ ...call, calls }), REMOTE_CALL_TIMEOUT_MS);
  const reply = answer.ok ? answer.replies[0] : undefined;
  if (reply === undefined)
    throw new ProxyError("PROXY_INTERNAL", { reason: "the gate did not take the operator's call" });
  if (reply.ok) return JSON.parse(reply.resultText) as z.infer<typeof deleted>;
  throw new ProxyError(reply.code, { detail: reply.message, retryAfterMs: reply.retryAfterMs, data: reply.data });
}

function requireGate(ctx: CallContext): { gate: GateLocal; self: AgentDid } {
  if (ctx.gate === null || ctx.agentDid === null)
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: name the agent." });
  return { gate: ctx.gate, self: ctx.agentDid };
}

function notYours(): ProxyError {
  return new ProxyError("PROXY_NOT_FOUND", { reason: "no such key, or another agent's" });
}

function shownApiKey(row: ApiKeyRow): z.infer<typeof shownKey> {
  return {
    apiKeyId: row.apiKeyId,
    serviceAccountId: row.serviceAccountId,
    agentDid: row.agentDid,
    tenantId: row.tenantId,
    name: row.name,
    scopes: scopesOfRow(row),
    maker: shownMaker(row),
    creatorUserId: row.creatorUserId,
    creatorServiceAccountId: row.creatorServiceAccountId,
    createdAtMs: row.createdAtMs,
    expiresAtMs: row.expiresAtMs,
    lastUsedAtMs: row.lastUsedAtMs,
  };
}

/** Of a key that an older version made: the service account of the key that made it, or else who stood at its beginning. */
function shownMaker({ maker, firstMaker, creatorUserId, creatorServiceAccountId }: ApiKeyRow): string | null {
  if (maker !== null) return maker;
  if (creatorServiceAccountId !== null) return `service_account:${creatorServiceAccountId}`;
  return firstMaker ?? (creatorUserId === null ? "operator" : null);
}
