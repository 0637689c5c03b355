/** `POST /hooks/agent`: a signed message from one agent to another. Contract §3. */
import type { Context, Handler } from "hono";
import type { PassedAgent } from "../../auth/passed.ts";
import type { RouteNeeds } from "../../auth/form.ts";
import { refusal } from "../../auth/reasons.ts";
import type {
  GroupSubmission,
  GroupSubmissionReply,
  Submission,
  SubmissionReply,
} from "../../gate/protocol/submission.ts";
import { errorFields } from "../../telemetry/log.ts";
import { count } from "../../telemetry/metrics.ts";
import { inSpan } from "../../telemetry/span.ts";
import { ProxyError } from "../../wire/problem.ts";
import { authenticate, beforeTheHop } from "../authenticate.ts";
import { acceptedByGate, admissionOf, gateFailed, gateStub, refusedByGate } from "../gate-client.ts";
import { chainScope, type HttpEnv } from "../middleware/request-context.ts";
import { readSend, type Send } from "../send.ts";

/** `POST /hooks/agent`, contract §3. @returns a handler that answers 202 once the message is on disk */
export function hook(needs: RouteNeeds): Handler<HttpEnv> {
  return async (c) => {
    const { chain, sends } = c.get("runtime");
    const scope = chainScope(c);
    let passed = (await authenticate(c, needs)) as PassedAgent;
    // The gate counts exactly, and after the body has been parsed: far beyond the rate it is not.
    const tooManyMs = sends.waitMs(passed.proof.keyX, Date.now());
    if (tooManyMs > 0) throw refusedByGate(c, passed, { ...refusal("sends-far-too-many"), retryAfterMs: tooManyMs });
    const request = await beforeTheHop(c, passed, () => readSend(c, passed.body));
    let reply = await submit(c, passed, request);
    if (!reply.ok && reply.refusal.reason === "gate-peer-fenced") {
      // The pairing may be newer than what this isolate remembers of it: the store is asked, and then the gate once more.
      const rejudged = await chain.rejudgeTrust(passed, scope);
      if (!rejudged.ok) throw rejudged.error;
      passed = rejudged.value;
      reply = await submit(c, passed, request);
    }
    if (!reply.ok) throw refusedByGate(c, passed, reply.refusal);
    acceptedByGate(c, passed);
    if ("deliveries" in reply) {
      const { deliveries } = reply;
      count("sallyport_group_sends", {});
      count("sallyport_group_messages", {}, deliveries.length);
      return c.json(
        { accepted: true, groupId: passed.trust?.kind === "group" ? passed.trust.groupId : null, deliveries },
        202,
      );
    }

    const { deliveryId } = reply;
    const waits = request.waitMs > 0 && reply.state === "queued";
    const waited = waits ? await awaitDelivery(c, passed, reply, request.waitMs) : null;
    const state = waited?.delivered === true ? "delivered" : reply.state;
    const delivered = state === "delivered" || state === "handled" || state === "failed";
    const queueDepth = waited?.queueDepth ?? reply.queueDepth;
    return c.json({ accepted: true, deliveryId, state, delivered, queued: state === "queued", queueDepth }, 202);
  };
}

type Reply = SubmissionReply | GroupSubmissionReply;

async function submit(c: Context<HttpEnv>, passed: PassedAgent, { text, optional }: Send): Promise<Reply> {
  const { trust, principal, body, bodySha256 } = passed;
  if (trust === null) throw new ProxyError("PROXY_INTERNAL", { reason: "a send that nobody judged" });
  const sent = {
    ...optional,
    ...(optional.idempotency === undefined ? {} : { idempotency: { key: optional.idempotency.key, bodySha256 } }),
    admission: admissionOf(passed),
    trustEpoch: trust.epoch,
    bytes: body.byteLength,
  };
  const gate = gateStub(c, principal.agentDid);
  try {
    const reply = await inSpan("gate.submit", () => {
      if (trust.kind === "group") {
        const { groupId, recipientDids } = trust;
        const submission: GroupSubmission = { ...sent, groupId, members: [...recipientDids] };
        return gate.submitToGroup(JSON.stringify(submission), text);
      }
      const submission: Submission = { ...sent, to: trust.recipientDid };
      if (trust.kind === "member") submission.groupId = trust.groupId;
      return gate.submit(JSON.stringify(submission), text);
    });
    return JSON.parse(reply) as Reply;
  } catch (error) {
    return { ok: false, refusal: gateFailed(c, error) };
  }
}

/**
 * The message is on disk by now: whatever happens while waiting, the answer is a 202, unless the sender's own authority has ended
 * meanwhile. No reply under it is given any more.
 *
 * @throws ProxyError PROXY_AUTH_REVOKED where it has
 */
async function awaitDelivery(
  c: Context<HttpEnv>,
  { principal }: PassedAgent,
  { deliveryId, queueDepth, epoch }: { deliveryId: string; queueDepth: number; epoch: number },
  forMs: number,
): Promise<{ delivered: boolean; queueDepth: number }> {
  const sender = { epoch, jti: principal.jti, expMs: principal.expMs };
  const waited = await gateStub(c, principal.agentDid)
    .awaitDelivery(deliveryId, forMs, sender)
    .catch((error: unknown) => {
      c.get("log").warn("hook.wait_broken", { deliveryId, ...errorFields(error) });
      return { delivered: false, queueDepth, senderHasEnded: false };
    });
  if (waited.senderHasEnded) throw new ProxyError("PROXY_AUTH_REVOKED", { reason: "the sender ended while it waited" });
  return waited;
}
