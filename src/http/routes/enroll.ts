/** `POST /v1/agents/enroll`: whoever holds an invite registers an agent by a proof of the agent's own key. Contract §2, §3. */
import type { Context, Handler } from "hono";
import { checkProof, type ProofForm } from "../../auth/proof.ts";
import { refusalError } from "../../auth/reasons.ts";
import { hashSecret, hasSecretForm, SECRET_PREFIXES } from "../../authority/secrets.ts";
import { writtenReply } from "../../call/reply.ts";
import { findInvite, type InvitePrincipal } from "../../identity/invites.ts";
import { parsePublicKey } from "../../identity/public-key.ts";
import { UNENDED } from "../../operators/lease.ts";
import { type BodyLimits, discardBody } from "../../resilience/bounded-body.ts";
import { decodeBase64Url } from "../../wire/base64url.ts";
import { ProxyError } from "../../wire/problem.ts";
import { importEd25519PublicKey } from "../../wire/proof.ts";
import { countGuess } from "../guesses.ts";
import { jsonResponse } from "../json-response.ts";
import type { HttpEnv } from "../middleware/request-context.ts";
import { refuseBeyond } from "../middleware/rate-limit.ts";
import { workerContext } from "../operator-context.ts";
import { bodyParams, memberOf, type Params } from "../params.ts";
import { readProvenBody } from "../proven-body.ts";

const RETRY_AFTER_MS = 60_000;
/** Some 300 bytes, sent at once; nobody has proved anything before it is read. */
const ENROLL_BODY: BodyLimits = { maxBytes: 8_192, timeoutMs: 5_000 };

/** Contract §3. @throws ProxyError PROXY_AUTH_INVALID_TOKEN for every invite that is of no use */
export const enroll: Handler<HttpEnv> = async (c) => {
  // Counted with the claims of devices: both are made by those who have nothing yet.
  await refuseBeyond(c, c.env.RATE_LIMIT_CLAIM, c.get("address") ?? "unknown", RETRY_AFTER_MS);
  const secret = await readInvite(c);
  const { params, proof } = await readProvenBody<Params>(c, {
    limits: ENROLL_BODY,
    parse: (bytes) => bodyParams()(c, bytes),
    refused: refusalError,
  });
  await prove(params, proof);
  const principal = await inviteOf(c, secret);
  const ctx = workerContext(c, principal, UNENDED);
  const reply = writtenReply(await c.get("runtime").dispatcher.dispatch(ctx, "http", "identity.enroll", params));
  if (!reply.ok) {
    const { code, message: detail, retryAfterMs, data } = reply;
    // Used up, expired or revoked since it was looked up.
    if (code === "PROXY_AUTH_INVALID_TOKEN") countGuess(c);
    throw new ProxyError(code, { detail, retryAfterMs, data });
  }
  return jsonResponse(c, reply.resultText, 201);
};

/** @throws ProxyError 401 for what is no invite; counted like a guess where it could have been one */
async function readInvite(c: Context<HttpEnv>): Promise<string> {
  const [, scheme = "", secret = ""] = /^(\S+) +(\S+)$/.exec(c.req.header("Authorization") ?? "") ?? [];
  if (scheme.toLowerCase() === "invite" && hasSecretForm(secret, SECRET_PREFIXES.invite)) return secret;
  await discardBody(c.req.raw.body);
  if (c.req.header("Authorization") === undefined) throw new ProxyError("PROXY_AUTH_MISSING_TOKEN");
  if (scheme.toLowerCase() !== "invite") throw new ProxyError("PROXY_AUTH_INVALID_SCHEME");
  countGuess(c);
  throw new ProxyError("PROXY_AUTH_INVALID_TOKEN", { reason: "invite-malformed" });
}

/** The newcomer holds the key that it wants registered. @throws ProxyError */
async function prove(params: Params, proof: ProofForm): Promise<void> {
  const publicKey = memberOf(params, "publicKey");
  const parsed = parsePublicKey(typeof publicKey === "string" ? publicKey : "");
  if (!parsed.ok) throw new ProxyError("PROXY_BAD_REQUEST", { detail: `publicKey: ${parsed.error}.` });
  const keyX = publicKey as string;
  const key = await importEd25519PublicKey(decodeBase64Url(keyX) ?? new Uint8Array());
  const proven = await checkProof(proof, keyX, key);
  if (!proven.ok) throw refusalError(proven.error);
}

/** @throws ProxyError PROXY_AUTH_INVALID_TOKEN, the same for every invite that is of no use */
async function inviteOf(c: Context<HttpEnv>, secret: string): Promise<InvitePrincipal> {
  const inviteSha256 = await hashSecret(secret);
  const { looks } = c.get("runtime");
  const waitMs = looks.waitMs(inviteSha256, c.get("address"), Date.now());
  if (waitMs > 0) throw new ProxyError("PROXY_RATE_LIMIT_EXCEEDED", { retryAfterMs: waitMs });
  const invite = await findInvite(c.env.DB, inviteSha256, Date.now());
  if (invite !== null) return invite;
  countGuess(c);
  throw new ProxyError("PROXY_AUTH_INVALID_TOKEN", { reason: "invite-of-no-use" });
}
