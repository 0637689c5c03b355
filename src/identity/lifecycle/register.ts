/** Registering an agent: its row, its key, its first identity token and token pair, in one commit. */
import { auditStatement } from "../../audit/entry.ts";
import type { CallContext } from "../../call/context.ts";
import { commitFenced, isUndoneBy } from "../../database/batch.ts";
import { didAuthority, type HumanDid, newDid, parseHumanDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { newUlid } from "../../wire/ulid.ts";
import { type Agent, insertAgent, isKeyTaken, ownerOfKey } from "../agents.ts";
import type { IdentityHooks } from "../hooks.ts";
import { currentSigningKey, signedByStatements } from "../keys/signing-keys.ts";
import { parsePublicKey } from "../public-key.ts";
import { AIT_TTL_SECONDS, assertMoved, ATTEMPTS_MAX, contended, type Registry, registryOf } from "../registry.ts";
import { insertAit, issueAit, type IssuedAit } from "../tokens/identity-token.ts";
import { insertFamily, newFamilyId, newTokenPair, type TokenPair } from "../tokens/token-pairs.ts";

/** What the operator says of a new agent. */
export type Registration = {
  name: string;
  framework: string;
  /** base64url of 32 bytes. */
  publicKey: string;
  ownerDid?: string | undefined;
  tenantId?: string | undefined;
  description?: string | undefined;
  ttlSeconds?: number | undefined;
};

/** What an agent starts with. Shown once. */
export type Credentials = {
  agentDid: string;
  ownerDid: string;
  tenantId: string;
  ait: string;
  access: { token: string; expiresAtMs: number };
  refreshToken: string;
};

/**
 * Registers an agent.
 *
 * @param hooks statements of other folders that are committed with it
 * @throws ProxyError PROXY_BAD_REQUEST naming the member that is wrong; PROXY_CONFLICT for a key that was ever registered
 */
export async function registerAgent(
  ctx: CallContext,
  params: Registration,
  hooks: IdentityHooks,
): Promise<Credentials> {
  const registry = registryOf(ctx);
  const agent = newAgent(registry, params);
  if ((await ownerOfKey(registry, agent.publicKey)) !== null) throw keyTaken();
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt += 1) {
    const key = await currentSigningKey(registry);
    const issued = await issueAit(registry, agent, key);
    const pair = await newTokenPair(registry.now());
    const holder = { familyId: newFamilyId(registry), agentDid: agent.agentDid, keyX: agent.publicKey };
    const outcome = await commitFenced(registry.db, ctx.authority, [
      ...signedByStatements(key, registry.now()),
      ...insertAgent(agent),
      insertAit(agent.agentDid, issued),
      ...insertFamily(holder, pair),
      ...hooks.atRegistration.flatMap((statements) => statements(ctx, agent)),
      auditStatement(ctx, {
        action: "identity.register",
        subject: `agent:${agent.agentDid}`,
        agentDid: agent.agentDid,
        result: "ok",
        details: { ownerDid: agent.ownerDid, tenantId: agent.tenantId, name: agent.name, jti: issued.jti },
      }),
    ]);
    if (outcome.ok) {
      ctx.authority.assertCurrent();
      ctx.log.info("identity.registered", { agentDid: agent.agentDid, tenantId: agent.tenantId, kid: issued.kid });
      return credentialsOf(agent, issued, pair);
    }
    if (isKeyTaken(outcome.error)) throw keyTaken();
    if (isUndoneBy(outcome.error, "invite_may_be_used"))
      throw new ProxyError("PROXY_AUTH_INVALID_TOKEN", { reason: "invite-over" });
    assertMoved(outcome.error);
    if (outcome.error === "authority-ended") ctx.authority.assertCurrent();
  }
  throw contended();
}

/** @returns what the answer to a registration or a re-key contains */
export function credentialsOf(agent: Agent, issued: IssuedAit, pair: TokenPair): Credentials {
  return {
    agentDid: agent.agentDid,
    ownerDid: agent.ownerDid,
    tenantId: agent.tenantId,
    ait: issued.ait,
    access: { token: pair.accessToken, expiresAtMs: pair.accessExpiresAtMs },
    refreshToken: pair.refreshToken,
  };
}

/** A key names one agent for ever: proofs do not name their agent, and an ended key may have been stolen. */
export function keyTaken(): ProxyError {
  return new ProxyError("PROXY_CONFLICT", { detail: "publicKey: is or was another registration's; make a new key." });
}

/** @throws ProxyError PROXY_BAD_REQUEST naming publicKey */
export function checkPublicKey(publicKey: string): void {
  const parsed = parsePublicKey(publicKey);
  if (!parsed.ok) throw new ProxyError("PROXY_BAD_REQUEST", { detail: `publicKey: ${parsed.error}.` });
}

function newAgent(registry: Registry, params: Registration): Agent {
  checkPublicKey(params.publicKey);
  const nowMs = registry.now();
  const ownerDid =
    params.ownerDid === undefined
      ? newDid(registry.authority, "human", newUlid(nowMs))
      : ownerDidOf(registry, params.ownerDid);
  return {
    agentDid: newDid(registry.authority, "agent", newUlid(nowMs)),
    ownerDid,
    tenantId: params.tenantId ?? defaultTenantId(ownerDid),
    name: params.name,
    framework: params.framework,
    description: params.description ?? null,
    publicKey: params.publicKey,
    aitTtlSeconds: params.ttlSeconds ?? AIT_TTL_SECONDS.default,
    createdAtMs: nowMs,
    rekeyedAtMs: null,
    revokedAtMs: null,
  };
}

/** @returns a person of this registry. @throws ProxyError PROXY_BAD_REQUEST naming ownerDid */
export function ownerDidOf(registry: Registry, text: string): HumanDid {
  const did = parseHumanDid(text);
  if (did === null || didAuthority(did) !== registry.authority) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: `ownerDid: must be a human DID of ${registry.authority}.` });
  }
  return did;
}

/** @returns the tenant of an owner whose agents were given none: one per owner, always the same. */
export function defaultTenantId(ownerDid: HumanDid): string {
  return `owner-${ownerDid.slice(ownerDid.lastIndexOf(":") + 1)}`;
}
