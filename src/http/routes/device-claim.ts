/** `POST /v1/devices/claim`: a device fetches its new token by a proof of its own key. Contract §3. */
import type { Handler } from "hono";
import { readBody } from "../../auth/body.ts";
import { provenRequest } from "../../auth/chain.ts";
import { checkBodyHash, readProof } from "../../auth/proof.ts";
import { type Refusal, refusalError } from "../../auth/reasons.ts";
import type { ClaimAnswer } from "../../gate/protocol/calls.ts";
import { parseAgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { sha256Base64Url } from "../../wire/proof.ts";
import { gateFailed, gateStub } from "../gate-client.ts";
import { refuseBeyond } from "../middleware/rate-limit.ts";
import { addressOf, type HttpEnv } from "../middleware/request-context.ts";

const DEVICE_ID_PATTERN = /^[A-Za-z0-9_-]{22}$/;
const RETRY_AFTER_MS = 60_000;

/** Whatever is wrong with a claim, its answer is the same. */
const REFUSED: Refusal = { reason: "gate-credential-refused" };

export const claimDevice: Handler<HttpEnv> = async (c) => {
  const { config } = c.get("runtime");
  const address = addressOf(c.req.raw);
  // Those without an address are counted together.
  await refuseBeyond(c, c.env.RATE_LIMIT_CLAIM, address ?? "unknown", RETRY_AFTER_MS);
  const body = await readBody(c.req.raw.body);
  if (!body.ok) throw refusalError(body.error);
  const claim = parseClaim(body.value);
  const { skewMaxSeconds, proofV1, publicAuthorities } = config;
  const rules = { nowMs: Date.now(), skewMaxSeconds, proofV1 };
  const proof = readProof(provenRequest(c.req.raw, publicAuthorities), rules);
  if (!proof.ok) throw refused(c, proof.error);
  const hashed = checkBodyHash(proof.value, await sha256Base64Url(body.value));
  if (!hashed.ok) throw refused(c, hashed.error);

  const ask = { deviceId: claim.deviceId, proof: proof.value, address, requestId: c.get("requestId") };
  const answer = (await gateStub(c, claim.agentDid)
    .claim(ask)
    .catch((error: unknown) => ({ ok: false, refusal: gateFailed(c, error) }))) as ClaimAnswer;
  if (!answer.ok) throw refused(c, answer.refusal);
  const { token, scopes, epoch, expiresAtMs } = answer;
  return c.json({ token, scopes, epoch, expiresAtMs }, 200, { "Cache-Control": "no-store" });
};

/** The reason goes to the log; the wire hears of nothing but a lock, a missing dependency, and, after a valid proof, that no token waits. */
function refused(c: Parameters<typeof claimDevice>[0], why: Refusal): ProxyError {
  c.get("log").warn("device.claim_refused", { reason: why.reason });
  const told = ["gate-nothing-to-claim", "gate-address-locked", "gate-unavailable", "gate-rate-exceeded"].includes(
    why.reason,
  );
  return refusalError(told ? why : REFUSED);
}

function parseClaim(body: Uint8Array) {
  let value: { agentDid?: unknown; deviceId?: unknown } | null;
  try {
    value = JSON.parse(new TextDecoder().decode(body)) as typeof value;
  } catch (cause) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "The body must be JSON.", cause });
  }
  const agentDid = typeof value?.agentDid === "string" ? parseAgentDid(value.agentDid) : null;
  if (agentDid === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: is no agent DID" });
  const deviceId = value?.deviceId;
  if (typeof deviceId !== "string" || !DEVICE_ID_PATTERN.test(deviceId)) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "deviceId: is no device id" });
  }
  return { agentDid, deviceId };
}
