/**
 * Each stage of a send alone, so many times in one request: `/bench/stage/NAME/TIMES`, with the headers and the body of a
 * signed send. The stages are the proxy's own modules; what a gate does is done in an object, without its commit. Built for
 * the bench alone, whose runner divides the runtime's processor time.
 */
import { checkAccess } from "../../../src/auth/access.ts";
import { closeDecision, openDecision } from "../../../src/auth/decision.ts";
import { type AgentForm, HOOK, readForm } from "../../../src/auth/form.ts";
import { checkBodyHash, checkProof } from "../../../src/auth/proof.ts";
import { checkReplay, createReplayMemory, nonceAgeMs } from "../../../src/auth/replay.ts";
import { checkRevocation } from "../../../src/auth/revocation.ts";
import { checkToken, createTokenMemory, type TokenMemory } from "../../../src/auth/token.ts";
import { admitAgent } from "../../../src/gate/admission/agent.ts";
import { createDeliveryIds } from "../../../src/gate/outbox/delivery-id.ts";
import { createOutbox } from "../../../src/gate/outbox/outbox.ts";
import type { AgentAdmission } from "../../../src/gate/protocol/submission.ts";
import type { QueuedMessage } from "../../../src/gate/protocol/transfer.ts";
import { createQueue } from "../../../src/gate/queue/queue.ts";
import { createGateStores } from "../../../src/gate/stores.ts";
import { startDeadline } from "../../../src/resilience/deadline.ts";
import { runtimeOf } from "../../../src/runtime.ts";
import { createLogLimit } from "../../../src/telemetry/log-limit.ts";
import { createLog, type Log } from "../../../src/telemetry/log.ts";
import type { AgentDid } from "../../../src/wire/did.ts";
import { deliverFrame, frameHead } from "../../../src/wire/frame-encoder.ts";
import { parseClientFrame } from "../../../src/wire/frames.ts";
import { sha256Base64Url } from "../../../src/wire/proof.ts";
import type { Ulid } from "../../../src/wire/ulid.ts";
/**
 * Each stage of a send alone, so many times in one request: `/bench/stage/NAME/TIMES`, with the headers and the body of a
 * signed send. The stages are the proxy's own modules; what a gate does is done in an object, without its commit. Built for
 * the bench alone, whose runner divides the runtime's processor time.
 */
import proxy, { Gate as PlainGate } from "../../../src/worker.ts";

export { Housekeeping } from "../../../src/worker.ts";

type StagesEnv = Omit<Env, "GATE"> & { GATE: DurableObjectNamespace<Gate> };
/** Does a stage once. What is async is awaited each time. */
type Stage = (turn: number) => unknown;

const SIGNED = { method: "POST", pathWithQuery: "/hooks/agent" };
const ROOM = 1_000_000_000;
/** A hand-over carries many; so many are usual under load. */
const BATCH = 16;
const SOCKET = "socket";
const OPEN = { isShut: false, refusal: () => null };
const ID = "01K00000000000000000000000" as Ulid;
const PEER = `did:cdi:registry.sallyport.example:agent:${ID}` as AgentDid;
const TABLES = ["proof_nonces", "outbound", "inbound"];
const FRAME = { v: 1, type: "deliver_ack", id: ID, ts: "2026-01-01T00:00:00.000Z", ackId: ID };

async function repeat(stage: Stage, times: number): Promise<void> {
  for (let turn = 0; turn < times; turn++) {
    const done = stage(turn);
    // oxlint-disable-next-line no-await-in-loop -- one after the other is what is measured
    if (isThenable(done)) await done;
  }
}

/** What an object's method answers with is no `Promise`, and is to be awaited all the same. */
function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/** No stage asks whose gate it is. */
const SELF = "did:cdi:gate.example.com:agent:01K00000000000000000000000" as AgentDid;

export class Gate extends PlainGate {
  /** A hop and nothing else, with what a send carries. */
  nothing(_submission: string, _body: string): string {
    return "";
  }

  /** Forgets what the stages have written, which is not what is measured. */
  clear(): void {
    createGateStores(this.ctx, SELF, runtimeOf(this.env).config, createLog());
    for (const table of TABLES) this.ctx.storage.sql.exec(`DELETE FROM ${table}`);
  }

  async run(name: string, times: number, admission: AgentAdmission, body: string): Promise<void> {
    const stage = this.#stages(admission, body)[name];
    if (stage === undefined) throw new Error(`no stage ${name}`);
    await repeat(stage, times);
  }

  #stages(admission: AgentAdmission, body: string): Record<string, Stage> {
    const { sql } = this.ctx.storage;
    const { config } = runtimeOf(this.env);
    const stores = {
      ...createGateStores(this.ctx, SELF, config, createLog()),
      accessMaxStaleMs: config.accessMaxStaleMs,
    };
    const outbox = createOutbox(sql, { outboxMax: ROOM, ttlMs: ROOM, batchMs: 0 }, createDeliveryIds(null));
    const limits = {
      queueMax: ROOM,
      ttlMs: ROOM,
      maxAttempts: 25,
      retry: { initialMs: 1_000, maxMs: 30_000, jitterRatio: 0.2 },
      deadLetterRetentionMs: ROOM,
    };
    const queue = createQueue({ sql, limits, admits: () => true, now: Date.now });
    const nowMs = Date.now();
    const bytes = body.length;
    const envelope = JSON.stringify({ fromAgentDid: PEER, contentType: "application/json", trustEpoch: 1 });
    const ids = createDeliveryIds(null);
    const queuedMessages = (): QueuedMessage[] =>
      Array.from({ length: BATCH }, () => ({ deliveryId: ids(nowMs), createdAtMs: nowMs, bytes, envelope, body }));
    const settled = (deliveryId: string) => ({ deliveryId, delivered: true, reason: null, attempts: 1, atMs: nowMs });
    return {
      nothing: () => undefined,
      admission: (turn) => admitAgent(stores, { ...admission, nonce: `${admission.nonce}${turn}` }, nowMs),
      outbox: () => outbox.accept({ to: PEER, bytes, envelope, body }, nowMs),
      handedOver: () => {
        const sent = Array.from({ length: BATCH }, () => outbox.accept({ to: PEER, bytes, envelope, body }, nowMs));
        const batch = outbox.nextBatch(PEER);
        outbox.handedOver(PEER, batch.length, batch.length, nowMs);
        outbox.settle(
          sent.map(({ deliveryId }) => settled(deliveryId)),
          nowMs,
        );
      },
      receive: () => queue.receive(PEER, queuedMessages(), OPEN, nowMs),
      pushed: () => {
        queue.receive(PEER, queuedMessages(), OPEN, nowMs);
        const pushes = queue.pump(() => [{ socketId: SOCKET, holder: "agent", lastFrameMs: nowMs }], nowMs);
        queue.acknowledge(
          pushes.map(({ deliveryId }) => ({
            deliveryId,
            holder: "agent",
            socketId: SOCKET,
            accepted: true,
            reason: null,
          })),
          nowMs,
        );
        queue.reported(PEER, queue.reportsFor(PEER), nowMs);
      },
      commit: async (turn) => {
        sql.exec("INSERT INTO proof_nonces (nonce, key, timestamp_s) VALUES (?, 'commit', 0)", `${nowMs} ${turn}`);
        await this.ctx.storage.sync();
      },
    };
  }
}

/** Remembers nothing: every token is one that is seen for the first time. */
const forgetful: TokenMemory = { ...createTokenMemory(), find: () => null, keep: () => undefined };

async function stages(request: Request, env: StagesEnv, ctx: ExecutionContext): Promise<Record<string, Stage>> {
  const { config, registry, registryScope, trust } = runtimeOf(env as unknown as Env);
  const log: Log = createLog();
  const deadline = startDeadline(60_000, Date.now);
  const background = (work: Promise<unknown>): void => ctx.waitUntil(work);
  const scope = registryScope({ now: Date.now, log, background, deadline });
  const tokens = createTokenMemory();
  const logLimit = createLogLimit();
  const replays = createReplayMemory(nonceAgeMs(config.skewMaxSeconds));
  const { headers } = request;
  const body = new Uint8Array(await request.arrayBuffer());
  const text = new TextDecoder().decode(body);
  const { registryIssuer, registryAuthority, skewMaxSeconds, proofV1 } = config;
  const settings = { registryIssuer, registryAuthority, skewMaxSeconds, proofV1, takesAssertions: false };
  const proven = { ...SIGNED, authorities: ["gate.example.com"], headers };
  const first = { keys: registry.keys, tokens: forgetful, issuer: config.registryIssuer };
  const again = { ...first, tokens };
  const decision = () => openDecision(HOOK.route, Date.now());
  const form = (memory: TokenMemory): AgentForm => {
    const read = readForm(proven, HOOK, { tokens: memory, settings, nowMs: Date.now() }, decision());
    if (!read.ok || read.value.kind !== "agent") throw new Error("the form is refused");
    return read.value;
  };
  const { ait, token, proof, access, addressee } = form(tokens);
  const recipientDid = addressee?.kind === "pair" ? addressee.recipientDid : null;
  const verified = await checkToken(ait, token, again, scope);
  if (!verified.ok || access === null || recipientDid === null) throw new Error("the token is refused");
  const known = verified.value.ait;
  const { sub, ownerDid, jti, exp, cnf } = known.claims;
  const held = async <T extends { ok: boolean }>(result: Promise<T> | T): Promise<void> => {
    if (!(await result).ok) throw new Error("a stage refused");
  };
  const admission: AgentAdmission = {
    principal: { kind: "agent", agentDid: sub, ownerDid, jti, expMs: exp * 1_000, keyX: cnf.jwk.x },
    nonce: proof.nonce,
    timestampSeconds: proof.timestampMs / 1_000,
  };
  const submission = JSON.stringify({ admission, to: recipientDid, trustEpoch: 1, bytes: body.length });
  const gate = env.GATE.getByName("stages");
  const inGate =
    (name: string, times: number): Stage =>
    () =>
      gate.run(name, times, { ...admission, nonce: `${crypto.randomUUID()} ` }, text);
  const times = Number(new URL(request.url).pathname.split("/")[4]);
  return {
    nothing: () => undefined,
    nothingAwaited: () => held({ ok: true }),
    formFirst: () => form(forgetful),
    form: () => form(tokens),
    tokenFirst: () => held(checkToken(ait, token, first, scope)),
    token: () => held(checkToken(known, token, again, scope)),
    revocation: () => held(checkRevocation(known, registry.crl, scope)),
    bodyHash: async () => held(checkBodyHash(proof, await sha256Base64Url(body))),
    proof: () => held(checkProof(proof, cnf.jwk.x, known.proofKey)),
    replay: (turn) => {
      replays.remember(cnf.jwk.x, `${proof.nonce}${turn}`, Date.now());
      return checkReplay(replays, cnf.jwk.x, proof.nonce, Date.now());
    },
    trust: () => held(trust.judge(sub, recipientDid, scope)),
    access: () => held(checkAccess(known, access, registry.access, scope)),
    decision: () => {
      const now = Date.now();
      closeDecision(openDecision(HOOK.route, now), null, {
        nowMs: now,
        log,
        skewWarnSeconds: config.skewWarnSeconds,
        limit: logLimit,
      });
    },
    hop: () => gate.nothing(submission, text),
    ack: () => parseClientFrame(JSON.stringify({ ...FRAME, accepted: true })),
    deliver: () =>
      deliverFrame(frameHead(Date.now()), {
        deliveryId: ID,
        fromAgentDid: sub,
        toAgentDid: recipientDid,
        payloadText: text,
      }),
    ...Object.fromEntries(
      ["nothing", "admission", "outbox", "handedOver", "receive", "pushed", "commit"].map((name) => [
        `gate-${name}`,
        inGate(name, times),
      ]),
    ),
  };
}

export default {
  async fetch(request: Request, env: StagesEnv, ctx: ExecutionContext): Promise<Response> {
    const [, bench, what, name = "", times] = new URL(request.url).pathname.split("/");
    if (bench !== "bench") return proxy.fetch(request as Parameters<typeof proxy.fetch>[0], env as unknown as Env, ctx);
    if (what === "clear") {
      await env.GATE.getByName("stages").clear();
      return Response.json(null);
    }
    const stage = (await stages(request, env, ctx))[name];
    if (stage === undefined) return new Response(null, { status: 404 });
    // A gate's stage is repeated there, in one call.
    await repeat(stage, name.startsWith("gate-") ? 1 : Number(times));
    return Response.json(null);
  },
};
