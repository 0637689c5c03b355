/** `POST /v1/devices/claim`: a device fetches its new token by a proof of its own key. Contract §3. */
import type { Context, Handler } from "hono";
import type { ProofForm } from "../../auth/proof.ts";
import { type Refusal, refusal, refusalError } from "../../auth/reasons.ts";
import type { ClaimAnswer } from "../../gate/protocol/calls.ts";
import type { BodyLimits } from "../../resilience/bounded-body.ts";
import { type AgentDid, didAuthority, parseAgentDid } from "../../wire/did.ts";
import { ProxyError } from "../../wire/problem.ts";
import { gateFailed, gateStub, refuseUnknownAgent } from "../gate-client.ts";
import type { HttpEnv } from "../middleware/request-context.ts";
import { refuseBeyond } from "../middleware/rate-limit.ts";
import { readProvenBody } from "../proven-body.ts";

const DEVICE_ID_PATTERN = /^[A-Za-z0-9_-]{22}$/;
const RETRY_AFTER_MS = 60_000;
const textDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** A claim has some 150 bytes, sent at once; nobody has proved anything before it is read. */
const CLAIM_BODY: BodyLimits = { maxBytes: 4_096, timeoutMs: 5_000 };

type DeviceClaim = { agentDid: AgentDid; deviceId: string };

/** Whatever is wrong with a claim, its answer is the same. */
const REFUSED: Refusal = { reason: "gate-credential-refused" };
/** What the wire may say beside: a lock, a missing dependency, and, after a valid proof alone, that no token waits. */
const TOLD: ReadonlySet<Refusal["reason"]> = new Set([
  "gate-nothing-to-claim",
  "gate-address-locked",
  "gate-unavailable",
  "gate-rate-exceeded",
  "body-no-room",
]);

/** Contract §3. @throws ProxyError the one 401 for whatever is wrong, but what a valid proof or a limit may say */
export const claimDevice: Handler<HttpEnv> = async (c) => {
  const address = c.get("address");
  // Those without an address are counted together.
  await refuseBeyond(c, c.env.RATE_LIMIT_CLAIM, address ?? "unknown", RETRY_AFTER_MS);
  const { claim, proof } = await readClaim(c);
  const ask = { deviceId: claim.deviceId, proof, address, requestId: c.get("requestId") };
  const unknown = await refuseUnknownAgent(c, claim.agentDid, "guesses");
  if (unknown !== null) throw refused(c, unknown);
  const answer = (await gateStub(c, claim.agentDid)
    .claim(ask)
    .catch((error: unknown) => ({ ok: false, refusal: gateFailed(c, error) }))) as ClaimAnswer;
  if (!answer.ok) throw refused(c, answer.refusal);
  const { token, scopes, epoch, expiresAtMs } = answer;
  return c.json({ token, scopes, epoch, expiresAtMs }, 200, { "Cache-Control": "no-store" });
};

/** @throws ProxyError */
async function readClaim(c: Context<HttpEnv>): Promise<{ claim: DeviceClaim; proof: ProofForm }> {
  const { registryAuthority } = c.get("runtime").config;
  const { params: claim, proof } = await readProvenBody(c, {
    limits: CLAIM_BODY,
    parse: parseClaim,
    refused: (why) => refused(c, why),
  });
  // Whoever is of another authority is nobody here: no gate is woken to say so.
  if (didAuthority(claim.agentDid) !== registryAuthority) throw refused(c, refusal("credential-agent-foreign"));
  return { claim, proof };
}

/** The reason goes to the log, once a minute for each address; the wire gets the one 401. */
function refused(c: Context<HttpEnv>, why: Refusal): ProxyError {
  const address = c.get("address");
  const leftOut = c.get("runtime").logLimit.due(`device.claim_refused ${address} ${why.reason}`, Date.now());
  if (leftOut !== null) c.get("log").warn("device.claim_refused", { reason: why.reason, address, leftOut });
  return refusalError(TOLD.has(why.reason) ? why : REFUSED);
}

/** @throws ProxyError PROXY_BAD_REQUEST for what is no claim */
function parseClaim(body: Uint8Array): DeviceClaim {
  let value: { agentDid?: unknown; deviceId?: unknown } | null;
  try {
    value = JSON.parse(textDecoder.decode(body)) as typeof value;
  } catch (cause) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "The body must be JSON in UTF-8.", cause });
  }
  const agentDid = typeof value?.agentDid === "string" ? parseAgentDid(value.agentDid) : null;
  if (agentDid === null) throw new ProxyError("PROXY_BAD_REQUEST", { detail: "agentDid: is no agent DID" });
  const deviceId = value?.deviceId;
  if (typeof deviceId !== "string" || !DEVICE_ID_PATTERN.test(deviceId)) {
    throw new ProxyError("PROXY_BAD_REQUEST", { detail: "deviceId: is no device id" });
  }
  return { agentDid, deviceId };
}
