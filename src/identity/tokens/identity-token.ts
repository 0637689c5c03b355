/** Agent identity tokens, contract §1: what the registry states about an agent, signed. */
import { SignJWT } from "jose";
import { aits } from "../../database/schema.ts";
import { query, type Statement } from "../../database/statement.ts";
import { type AitClaims, AIT_TYPE, MAX_AIT_BYTES, parseAitClaims } from "../../wire/ait.ts";
import type { AgentDid } from "../../wire/did.ts";
import { newUlid } from "../../wire/ulid.ts";
import type { Agent } from "../agents.ts";
import type { DerivedKey } from "../keys/derivation.ts";
import type { Registry } from "../registry.ts";

/** An identity token and what the registry remembers of it. */
export type IssuedAit = {
  readonly ait: string;
  readonly jti: string;
  readonly kid: string;
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
};

/**
 * @param agent as it stands in the registry
 * @param key signs; its public half is in the keys document
 * @param jti given where the token's name must be known before it is signed
 * @throws TypeError when the claims are none that our own verifier accepts, which no parsed input can cause
 */
export async function issueAit(
  registry: Registry,
  agent: Agent,
  key: DerivedKey,
  jti: string = newUlid(registry.now()),
): Promise<IssuedAit> {
  const iat = Math.floor(registry.now() / 1_000);
  const exp = iat + agent.aitTtlSeconds;
  const claims = parseAitClaims({
    iss: registry.issuer,
    sub: agent.agentDid,
    ownerDid: agent.ownerDid,
    name: agent.name,
    framework: agent.framework,
    ...(agent.description === null ? {} : { description: agent.description }),
    cnf: { jwk: { kty: "OKP", crv: "Ed25519", x: agent.publicKey } },
    iat,
    nbf: iat,
    exp,
    jti,
  });
  if (!claims.ok) throw new TypeError(`an identity token would not be accepted: ${claims.error}`);
  const ait = await new SignJWT(plain(claims.value))
    .setProtectedHeader({ alg: "EdDSA", typ: AIT_TYPE, kid: key.kid })
    .sign(key.privateKey);
  if (ait.length > MAX_AIT_BYTES) throw new TypeError("an identity token would be too long to be accepted");
  return { ait, jti, kid: key.kid, issuedAtMs: iat * 1_000, expiresAtMs: exp * 1_000 };
}

function plain(claims: AitClaims): Record<string, unknown> {
  return { ...claims };
}

/** @returns the statement that remembers the token, so that it can be revoked. */
export function insertAit(agentDid: AgentDid, issued: IssuedAit): Statement<D1Result> {
  const { jti, kid, issuedAtMs, expiresAtMs } = issued;
  return query.insert(aits).values({ jti, agentDid, kid, issuedAtMs, expiresAtMs });
}
