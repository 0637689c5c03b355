/**
 * The gate: one Durable Object per agent, named by its DID. Everything that must be in one order for an agent is decided
 * here, in one thread, and a revocation is a fact the moment it is written.
 */
import { DurableObject } from "cloudflare:workers";
import { refusalError } from "../auth/reasons.ts";
import type { Reply } from "../rpc/dispatcher.ts";
import type { Bookmarks, LocalMessage, Scope } from "../rpc/method.ts";
import { scopesOf } from "../rpc/method.ts";
import { type Runtime, runtimeOf } from "../runtime.ts";
import { startDeadline } from "../resilience/deadline.ts";
import { createLog, errorFields, type Log } from "../telemetry/log.ts";
import { count, flushSoon } from "../telemetry/metrics.ts";
import type { AgentDid } from "../wire/did.ts";
import { problemResponse, ProxyError, proxyErrorFrom } from "../wire/problem.ts";
import { RELAY_CLOSE } from "../wire/relay-close.ts";
import { newUlid } from "../wire/ulid.ts";
import { admitAgent, type AgentAdmission, GateRefusal, type Submission, type SubmissionReply } from "./admission.ts";
import type { AuthorityRef } from "./authority.ts";
import {
  admitApiKey,
  admitCredential,
  type ApiKeyGrant,
  claimDeviceToken,
  type ClaimProof,
  type GateCredential,
} from "./credentials.ts";
import { createDeliveryIds, type Envelope, type Outcome, type Parcel, type TakeOver } from "./delivery.ts";
import { createExchange, type Exchange } from "./exchange.ts";
import { createGroupCommit, type GroupCommit } from "./group-commit.ts";
import { createHouse, type House } from "./house.ts";
import { raiseStatement } from "./local.ts";
import { PROXY_LANE } from "./queue.ts";
import { createRelay, type Relay } from "./relay.ts";
import { createRunner, type Runner } from "./running.ts";
import { hasSchema } from "./schema.ts";
import { SOCKETS_MAX } from "./sockets.ts";
import { readUpgrade, type Upgrade, UPGRADE_HEADER } from "./upgrade.ts";

/** Who calls, as the Worker verified it. */
export type GateCaller =
  | { kind: "agent"; admission: AgentAdmission }
  /** `address` is whom failures are counted against. */
  | { kind: "credential"; credential: GateCredential; address: string | null }
  | { kind: "apiKey"; key: ApiKeyGrant }
  | { kind: "operator" };

/** A device asks for the token that waits for it. */
export type Claim = { deviceId: string; proof: ClaimProof; address: string | null; requestId: string };

export type ClaimAnswer =
  | { ok: true; token: string; scopes: readonly Scope[]; epoch: number; expiresAtMs: number }
  | { ok: false; refusal: GateRefusal["refusal"] };

export type GateCall = {
  caller: GateCaller;
  surface: "rpc" | "http";
  requestId: string;
  origin: string | null;
  /** How fresh a list must be. */
  bookmark?: string | null;
  /** In their order; what follows the end of its own authority is refused. */
  calls: { method: string; params: unknown }[];
};

export type GateAnswer =
  | { ok: true; replies: Reply[]; bookmark: string | null }
  | { ok: false; refusal: GateRefusal["refusal"] };

/** A held message is looked after at the latest by then, also when the process has died in between. */
const SAFETY_ALARM_MS = 2_000;
/** A report that nobody waits for goes into whatever commit comes next, or into its own by then. */
const SETTLE_WITHIN_MS = 50;
const HOUSEKEEPING_AFTER_MS = 60_000;

type Open = { house: House; commits: GroupCommit; relay: Relay; exchange: Exchange; runner: Runner };

export class Gate extends DurableObject<Env> {
  readonly #runtime: Runtime;
  readonly #log: Log;
  readonly #self: AgentDid;
  #open: Open | null = null;
  #alarmAtMs = Infinity;
  /** When what is past is forgotten next; after a waking, whenever the alarm comes. */
  #pruneDueAtMs = Infinity;
  /** The group at hand is the alarm's own: it must not call for the next one, or an idle gate never slept. */
  #isPruning = false;
  /** Requests that wait for the end of a message, by its delivery id. */
  readonly #waiting = new Map<string, Set<(delivered: boolean) => void>>();
  readonly #localIds = createDeliveryIds(null);

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#runtime = runtimeOf(env);
    this.#self = (ctx.id.name ?? "") as AgentDid;
    this.#log = createLog({ gate: this.#self });
    if (!hasSchema(ctx.storage.sql)) return;
    this.#ensureOpen();
    void ctx.blockConcurrencyWhile(async () => {
      this.#alarmAtMs = (await ctx.storage.getAlarm()) ?? Infinity;
    });
  }

  /** The gate's tables and rooms; only called once something has been verified. */
  #ensureOpen(): Open {
    if (this.#open !== null) return this.#open;
    const { config } = this.#runtime;
    const house = createHouse(this.ctx, config, this.#log);
    const commits = createGroupCommit(
      this.ctx.storage,
      (effects) => this.#beforeCommit(effects),
      (error) => {
        this.#log.error("gate.broken", errorFields(error));
        this.ctx.abort("memory and disk are apart");
      },
    );
    const relay = createRelay(house, commits, {
      self: this.#self,
      config,
      now: Date.now,
      log: this.#log,
      trustEpoch: (to) => this.#trustEpoch(to),
      call: (session, authority, { method, params }) => {
        const request = { requestId: newUlid(Date.now()), origin: session.origin, bookmarks: null };
        return this.#ensureOpen().runner.run(authority, request, { surface: "rpc", method, params });
      },
    });
    const exchange = createExchange(house, commits, {
      self: this.#self,
      gateOf: (did) => this.env.GATE.getByName(did),
      db: this.env.DB,
      now: Date.now,
      log: this.#log,
    });
    const runner = createRunner(house, commits, relay, {
      self: this.#self,
      env: this.env,
      config,
      dispatcher: () => this.#runtime.dispatcher,
      now: Date.now,
      log: this.#log,
      gateOf: (did) => this.env.GATE.getByName(did),
      putLocal: (message) => this.#putLocal(house, message),
      fencePeer: (peer, trustEpoch) => this.#fencePeer(house, peer, trustEpoch),
      wake: () => {
        commits.wake();
        // In the commit of what was written, so that it is looked after though the process dies before the group.
        this.#arm(Date.now());
      },
      background: (work) => this.ctx.waitUntil(work),
    });
    this.#open = { house, commits, relay, exchange, runner };
    commits.wake();
    return this.#open;
  }

  /** The last part of every group: pushes what can be pushed, starts what is due, and makes sure to be woken. */
  #beforeCommit(effects: number): void {
    const { house, relay, exchange, commits } = this.#ensureOpen();
    const nowMs = Date.now();
    relay.push(nowMs);
    house.rate.save();
    this.#reportDrift(nowMs);
    exchange.start(nowMs);
    if (effects > 0 && !this.#isPruning)
      this.#pruneDueAtMs = Math.min(this.#pruneDueAtMs, nowMs + HOUSEKEEPING_AFTER_MS);
    this.#isPruning = false;
    const tickMs = exchange.nextDueMs(nowMs);
    if (tickMs !== null) commits.wake(Math.max(1, tickMs - nowMs));
    this.#arm(nowMs);
  }

  /** An agent whose clock drifts is told of before its requests are refused for it. */
  #reportDrift(nowMs: number): void {
    const { house, relay } = this.#ensureOpen();
    const crossing = house.drift.settle(nowMs);
    if (crossing === null) return;
    const { skewWarnSeconds: warnSeconds, skewMaxSeconds: maxSeconds } = this.#runtime.config;
    const details = { ...crossing, warnSeconds, maxSeconds };
    const subject = { subject: `agent:${this.#self}`, agentDid: this.#self };
    const nobody = { principal: null, origin: null, requestId: null };
    house.audit.record({ action: "agent.clock_drift", ...subject, result: "warned", details }, nobody, nowMs);
    relay.broadcast("agent.clock_drift", { agentDid: this.#self, ...details });
    this.#log.warn("agent.clock_drift", details);
    count("sallyport_agent_clock_drifts", { direction: crossing.smoothedMs < 0 ? "behind" : "ahead" });
    flushSoon(this.env, (work) => this.ctx.waitUntil(work));
  }

  /** Sets the alarm where it is later than what is due first. One that comes early looks again. */
  #arm(nowMs: number): void {
    const { house, relay, exchange } = this.#ensureOpen();
    const sweepMs = house.queue.nextDueMs(house.sockets.size() > 0, nowMs);
    const owed = exchange.nextDueMs(nowMs);
    const dueMs = Math.min(
      house.outbox.isHolding() || !house.audit.isEmpty() || owed !== null ? nowMs + SAFETY_ALARM_MS : Infinity,
      sweepMs ?? Infinity,
      relay.nextDueMs() ?? Infinity,
      this.#pruneDueAtMs,
    );
    if (dueMs >= this.#alarmAtMs) return;
    this.#alarmAtMs = Math.max(dueMs, nowMs + 1);
    void this.ctx.storage.setAlarm(this.#alarmAtMs);
  }

  override async alarm(): Promise<void> {
    if (this.#open === null && !hasSchema(this.ctx.storage.sql)) return;
    const { house, relay, commits } = this.#ensureOpen();
    this.#alarmAtMs = Infinity;
    await commits.commit(() => {
      const nowMs = Date.now();
      relay.sweep(nowMs);
      house.queue.expire((socketId) => house.sockets.byId(socketId) !== null, nowMs);
      if (this.#pruneDueAtMs === Infinity || this.#pruneDueAtMs <= nowMs) {
        house.prune(nowMs);
        this.#isPruning = true;
        this.#pruneDueAtMs = Math.max(house.nextPruneMs() ?? Infinity, nowMs + 1_000);
      }
    });
  }

  // ---- sends -------------------------------------------------------------------------------------------------------

  /**
   * Takes a send: nonce, flags, rate and the message itself in one commit.
   *
   * @param submission JSON text of a {@link Submission}; flat text costs an RPC least
   * @returns JSON text of a {@link SubmissionReply}
   */
  async submit(submission: string, body: string): Promise<string> {
    const send = JSON.parse(submission) as Submission;
    const to = send.to as AgentDid;
    const { house, commits } = this.#ensureOpen();
    const { admission, trustEpoch, bytes, idempotency, contentType, conversationId, replyTo, traceparent } = send;
    const envelope: Envelope = {
      fromAgentDid: this.#self,
      trustEpoch,
      ...(contentType === undefined ? {} : { contentType }),
      ...(conversationId === undefined ? {} : { conversationId }),
      ...(replyTo === undefined ? {} : { replyTo }),
      ...(traceparent === undefined ? {} : { traceparent }),
    };
    // A repeat under an idempotency key may be refused after its nonce is written, which is undone then.
    const mayUndo = idempotency !== undefined;
    const reply = await this.#refusable(() =>
      (mayUndo ? commits.commit : commits.commitChecked)((): SubmissionReply => {
        const nowMs = Date.now();
        if (!house.fences.admits(to, trustEpoch)) throw new GateRefusal("gate-peer-fenced");
        house.outbox.assertRoom(bytes);
        admitAgent(house.admission, admission, nowMs);
        const draft = {
          to,
          bytes,
          envelope: JSON.stringify(envelope),
          body,
          ...(idempotency === undefined ? {} : { idempotency }),
        };
        return { ok: true, ...house.outbox.accept(draft, nowMs) };
      }),
    );
    return JSON.stringify(reply);
  }

  async #refusable<T>(work: () => Promise<T>): Promise<T | { ok: false; refusal: GateRefusal["refusal"] }> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof GateRefusal) return { ok: false, refusal: error.refusal };
      throw error;
    }
  }

  /** Waits until a message of this agent has been acknowledged, or for so long; then says what waits for its recipient still. */
  async awaitDelivery(deliveryId: string, waitMs: number): Promise<{ delivered: boolean; queueDepth: number }> {
    const { house } = this.#ensureOpen();
    const status = house.outbox.status(deliveryId, Date.now());
    if (status === null) return { delivered: false, queueDepth: 0 };
    const delivered =
      status.state === "queued" ? await this.#untilSettled(deliveryId, waitMs) : status.state === "delivered";
    return { delivered, queueDepth: house.outbox.queueDepth(status.to) };
  }

  async #untilSettled(deliveryId: string, waitMs: number): Promise<boolean> {
    const waiters = this.#waiting.get(deliveryId) ?? new Set();
    this.#waiting.set(deliveryId, waiters);
    let waiter: ((delivered: boolean) => void) | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await new Promise<boolean>((resolve) => {
        waiter = resolve;
        waiters.add(resolve);
        timer = setTimeout(() => resolve(false), waitMs);
      });
    } finally {
      clearTimeout(timer);
      if (waiter !== undefined) waiters.delete(waiter);
      if (waiters.size === 0) this.#waiting.delete(deliveryId);
    }
  }

  // ---- between gates -----------------------------------------------------------------------------------------------

  /** Takes messages over from a sender's gate; on disk before the answer. */
  async takeOver(from: AgentDid, parcels: Parcel[]): Promise<TakeOver> {
    const { house, commits } = this.#ensureOpen();
    const refusal = (parcel: Parcel): string | null => {
      if (house.authority.isEnded()) return "recipient revoked";
      const { trustEpoch } = JSON.parse(parcel.envelope) as Envelope;
      return trustEpoch === undefined || house.fences.admits(from, trustEpoch) ? null : "trust removed";
    };
    return commits.commitChecked(() => ({ taken: house.queue.takeOver(from, parcels, refusal, Date.now()) }));
  }

  /** What became of messages that were handed over; on disk before the answer. */
  async settle(outcomes: Outcome[]): Promise<void> {
    const { house, commits, relay } = this.#ensureOpen();
    const isAwaited = outcomes.some(({ deliveryId }) => this.#waiting.has(deliveryId));
    await commits.commitChecked(
      () => relay.tell(house.outbox.settle(outcomes, Date.now())),
      isAwaited ? 0 : SETTLE_WITHIN_MS,
    );
    for (const { deliveryId, delivered } of outcomes) {
      for (const resolve of this.#waiting.get(deliveryId) ?? []) resolve(delivered);
    }
  }

  /** Attempts so far on a message that waits here. */
  async attempts(deliveryId: string): Promise<number | null> {
    return this.#open?.house.queue.attempts(deliveryId) ?? null;
  }

  /** Puts a message of the proxy's own into this agent's queue; on disk before the answer. */
  async notify(message: LocalMessage): Promise<{ deliveryId: string }> {
    const { house, commits } = this.#ensureOpen();
    return commits.commit(() => this.#putLocal(house, message));
  }

  #putLocal(house: House, message: LocalMessage): { deliveryId: string } {
    const nowMs = Date.now();
    const { fromAgentDid, fromSubject, conversationId, payload } = message;
    const deliveryId = message.deliveryId ?? this.#localIds(nowMs);
    const envelope: Envelope = {
      fromAgentDid,
      contentType: "application/json",
      ...(fromSubject === undefined ? {} : { fromSubject }),
      ...(conversationId === undefined ? {} : { conversationId }),
    };
    const bytes = new TextEncoder().encode(payload).length;
    const parcel = { deliveryId, createdAtMs: nowMs, bytes, envelope: JSON.stringify(envelope), body: payload };
    house.queue.putLocal(fromSubject ?? PROXY_LANE, parcel, nowMs);
    return { deliveryId };
  }

  /** A peer below this trust epoch is out, here and from now on; on disk before the answer. */
  async fencePeer(peer: AgentDid, trustEpoch: number): Promise<void> {
    const { house, commits } = this.#ensureOpen();
    await commits.commit(() => this.#fencePeer(house, peer, trustEpoch));
  }

  #fencePeer(house: House, peer: AgentDid, trustEpoch: number): void {
    house.fences.raise(peer, trustEpoch);
    house.queue.endLane(peer, "trust removed", Date.now());
  }

  /** Identity tokens that a registry has revoked: what runs under them ends here, though this agent may be idle. */
  async endTokens(tokens: { jti: string; expMs: number }[], reason: string): Promise<void> {
    // A gate that nobody has proved anything to has nothing that could end.
    if (this.#open === null) return;
    const { house, commits, relay } = this.#open;
    await commits.commit(() => {
      house.authority.endTokens(tokens, reason);
      relay.sweep(Date.now());
    });
    // Also when this is told again: the first time may have failed here.
    await raiseStatement(this.env.DB, `agent:${this.#self}`, house.authority.epoch()).run();
  }

  // ---- calls -------------------------------------------------------------------------------------------------------

  /** Admits one authenticated request and runs its calls in their order, each under the caller's authority. */
  async call(request: GateCall): Promise<GateAnswer> {
    return this.#refusable(async (): Promise<GateAnswer> => {
      const ref = await this.#admit(request.caller);
      const { runner } = this.#ensureOpen();
      const replies: Reply[] = [];
      const bookmarks: Bookmarks = { given: request.bookmark ?? null, latest: null };
      for (const { method, params } of request.calls) {
        // A copy each: what follows the end of its own authority in a batch is refused.
        // oxlint-disable-next-line no-await-in-loop -- a batch runs in its order
        replies.push(
          await runner.run(
            ref === null ? null : { ...ref },
            { ...request, bookmarks },
            { surface: request.surface, method, params },
          ),
        );
      }
      return { ok: true, replies, bookmark: bookmarks.latest };
    });
  }

  /** The caller's authority, decided here; null for the operator, who is above it. @throws GateRefusal */
  async #admit(caller: GateCaller): Promise<AuthorityRef | null> {
    switch (caller.kind) {
      case "agent": {
        const { house, commits } = this.#ensureOpen();
        return commits.commit(() => {
          admitAgent(house.admission, caller.admission, Date.now());
          return agentRef(house, caller.admission);
        });
      }
      case "credential":
        return admitCredential(this.#open, this.#self, caller.credential, caller.address);
      case "apiKey":
        return admitApiKey(this.#ensureOpen(), caller.key);
      case "operator":
        this.#ensureOpen();
        return null;
    }
  }

  /** The one-time hand-over of a new device token. */
  async claim(claim: Claim): Promise<ClaimAnswer> {
    return this.#refusable(async (): Promise<ClaimAnswer> => {
      const { deviceTokenTtlMs: tokenTtlMs } = this.#runtime.config;
      const { device, token, expiresAtMs } = await claimDeviceToken(this.#open, this.#self, { ...claim, tokenTtlMs });
      this.#log.info("device.claimed", { requestId: claim.requestId, deviceId: device.deviceId, epoch: device.epoch });
      return { ok: true, token, scopes: device.scopes, epoch: device.epoch, expiresAtMs };
    });
  }

  async #trustEpoch(to: AgentDid): Promise<number> {
    const { config, trust } = this.#runtime;
    const deadline = startDeadline(config.authDeadlineMs, Date.now);
    try {
      const background = (work: Promise<unknown>): void => this.ctx.waitUntil(work);
      const scope = { now: Date.now, log: this.#log, background, signal: deadline.signal };
      const judged = await trust.judge(this.#self, to, scope);
      if (!judged.ok) throw refusalError(judged.error);
      return judged.value.epoch;
    } finally {
      deadline.end();
    }
  }

  // ---- sockets -----------------------------------------------------------------------------------------------------

  /** The socket upgrade, the one request that cannot be an RPC. */
  override async fetch(request: Request): Promise<Response> {
    const asked = request.headers.get(UPGRADE_HEADER);
    if (asked === null) return new Response(null, { status: 404 });
    const upgrade = readUpgrade(asked);
    try {
      return await this.#upgrade(upgrade);
    } catch (thrown) {
      const error = thrown instanceof GateRefusal ? refusalError(thrown.refusal) : proxyErrorFrom(thrown);
      if (error.code === "PROXY_INTERNAL") this.#log.error("relay.upgrade_failed", errorFields(error.cause ?? error));
      else this.#log.warn("relay.refused", { requestId: upgrade.requestId, code: error.code, reason: error.reason });
      return problemResponse(error, upgrade.requestId);
    }
  }

  async #upgrade(upgrade: Upgrade): Promise<Response> {
    const admitted = "caller" in upgrade ? await this.#admit(upgrade.caller) : null;
    // A ticket is looked for only where there are tables; nothing is made for a stranger.
    if (this.#open === null) throw new ProxyError("PROXY_AUTH_INVALID_TOKEN");
    const { house, commits, relay } = this.#open;
    const pair = new WebSocketPair();
    const session = await commits.commit(() => {
      const nowMs = Date.now();
      const authority = "caller" in upgrade ? admitted : house.relayTickets.consume(upgrade.ticketSha256, nowMs);
      if (authority === null || house.whyEnded(authority) !== null) throw new ProxyError("PROXY_AUTH_INVALID_TOKEN");
      const scopes = scopesOf(authority.principal);
      // Those that this one takes the place of make room for it.
      if (house.sockets.size() - house.sockets.supersededBy(authority).length >= SOCKETS_MAX)
        throw new GateRefusal("gate-sockets-exhausted", 1_000);
      return house.sockets.accept(pair[1], { authority, scopes, origin: upgrade.origin }, nowMs);
    });
    relay.supersede(session);
    this.#log.info("relay.connected", {
      requestId: upgrade.requestId,
      socketId: session.socketId,
      sockets: house.sockets.size(),
    });
    void this.#tellOwed();
    return new Response(null, {
      status: 101,
      webSocket: pair[0],
      headers: {
        "X-Request-Id": upgrade.requestId,
        ...("protocol" in upgrade ? { "Sec-WebSocket-Protocol": upgrade.protocol } : {}),
      },
    });
  }

  /** Tells this agent of its dead letters what it has not been told yet, a batch a commit. */
  async #tellOwed(): Promise<void> {
    const { house, commits, relay } = this.#ensureOpen();
    let last: string | null = null;
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop -- one batch after the other
      const first: string | null = await commits.commit(() => {
        const due = house.outbox.dueReceipts();
        relay.tell(due);
        return due[0]?.deliveryId ?? null;
      });
      if (first === null || first === last) return;
      last = first;
    }
  }

  override webSocketMessage(socket: WebSocket, message: string | ArrayBuffer): void {
    const session = this.#open?.house.sockets.of(socket) ?? null;
    // A frame of a socket that has been ended here: it may still arrive, and is not read.
    if (session !== null) this.#ensureOpen().relay.message(session, message);
  }

  override webSocketClose(socket: WebSocket): void {
    const session = this.#open?.house.sockets.of(socket) ?? null;
    if (session !== null) this.#ensureOpen().relay.gone(session);
    if (socket.readyState === WebSocket.CLOSED) return;
    // Completes the handshake. What the peer sent may be a code that nobody may send back.
    socket.close(RELAY_CLOSE.normal, "");
  }

  override webSocketError(socket: WebSocket, error: unknown): void {
    const session = this.#open?.house.sockets.of(socket) ?? null;
    this.#log.warn("relay.socket_error", errorFields(error));
    if (session !== null) this.#ensureOpen().relay.gone(session);
  }
}

/** The authority that an admitted request of the agent runs under. */
function agentRef(house: House, { principal }: AgentAdmission): AuthorityRef {
  return { kind: "agent", epoch: house.authority.epoch(), jti: principal.jti, expMs: principal.expMs, principal };
}
