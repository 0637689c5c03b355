/**
 * The gate: one Durable Object per agent, named by its DID. Everything that must be in one order for an agent is decided
 * here, in one thread, and a revocation is a fact the moment it is written.
 */
import { DurableObject } from "cloudflare:workers";
import { createLockout } from "../auth/limits/lockout.ts";
import { refusalError } from "../auth/reasons.ts";
import { type OperatorPrincipal, ROOT } from "../authority/operator.ts";
import { scopesOf } from "../authority/principal.ts";
import type { AuthorityRef } from "../authority/reference.ts";
import type { Handling, LocalMessage } from "../call/gate.ts";
import type { GroupFence } from "../call/group-fence.ts";
import { runBatch } from "../database/batch.ts";
import { raiseStatements } from "../database/fencing.ts";
import { endsAuthority } from "../rpc/permissions.ts";
import { type Runtime, runtimeOf } from "../runtime.ts";
import { createLog, errorFields, type Log } from "../telemetry/log.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { problemResponse, ProxyError, proxyErrorFrom } from "../wire/problem.ts";
import { RELAY_CLOSE, RELAY_SUBPROTOCOL_V1 } from "../wire/relay-close.ts";
import { peekMethod } from "../wire/rpc.ts";
import { admitAgent, agentRef } from "./admission/agent.ts";
import { admitApiKey } from "./admission/api-key.ts";
import { claimDeviceToken } from "./admission/device-claim.ts";
import { admitDeviceToken } from "./admission/device-token.ts";
import { admitShared } from "./admission/shared-secret.ts";
import { answerRequest } from "./calls/admitted-request.ts";
import { endClaimedOver } from "./calls/claimed-over.ts";
import type { Claim, ClaimAnswer, GateAnswer, GateCall, GateCaller } from "./protocol/calls.ts";
import { GateRefusal } from "./protocol/refusal.ts";
import type {
  GroupSubmission,
  GroupSubmissionReply,
  Submission,
  SubmissionReply,
  WaitingSender,
} from "./protocol/submission.ts";
import type { DeliveryOutcome, QueuedMessage, TransferResult } from "./protocol/transfer.ts";
import { readUpgrade, type Upgrade, UPGRADE_HEADER } from "./protocol/upgrade.ts";
import { sendDueReceipts } from "./relay/due-receipts.ts";
import { createSendTrust } from "./send-trust.ts";
import { createGateState, type GateState } from "./state.ts";
import { hasSchema } from "./storage/schema.ts";

/** Repeats of a failed alarm before its time after a failure is made sure of; the platform makes six. */
const ALARM_RETRIES_SAFE = 4;
const ALARM_AFTER_FAILURE_MS = 300_000;

export class Gate extends DurableObject<Env> {
  readonly #runtime: Runtime;
  readonly #log: Log;
  /** Null for an object that no agent's DID names: nothing is ever opened there. */
  readonly #self: AgentDid | null;
  /** In memory, with tables or without: a stranger learns nothing from it of whether the agent exists. */
  readonly #lockout = createLockout();
  #open: GateState | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#runtime = runtimeOf(env);
    this.#self = parseAgentDid(ctx.id.name ?? "");
    this.#log = createLog({ gate: this.#self });
    if (this.#self === null || !hasSchema(ctx.storage.sql)) return;
    const { maintenance } = this.#ensureOpen();
    void ctx.blockConcurrencyWhile(async () => maintenance.alarmIsSetFor(await ctx.storage.getAlarm()));
  }

  /** The gate's tables and all that works on them; only called once something has been verified. */
  #ensureOpen(): GateState {
    if (this.#open !== null) return this.#open;
    const self = this.#self;
    if (self === null) throw new Error("a gate is named by the DID of its agent");
    this.#open = createGateState({
      ctx: this.ctx,
      env: this.env,
      self,
      config: this.#runtime.config,
      dispatcher: () => this.#runtime.dispatcher,
      gateStub: (did) => this.env.GATE.getByName(did),
      trust: createSendTrust({ self, ctx: this.ctx, runtime: this.#runtime, log: this.#log }),
      log: this.#log,
      onBroken: (error) => {
        this.#log.error("gate.broken", errorFields(error));
        this.ctx.abort("memory and disk are apart");
      },
    });
    this.#open.commits.wake();
    return this.#open;
  }

  /**
   * Does what is due. The platform repeats an alarm that fails six times and then gives it up, and nothing else would wake a gate
   * that holds messages: before the last repeats the next alarm is set and on disk.
   */
  override async alarm(info?: AlarmInvocationInfo): Promise<void> {
    if (this.#self === null || (this.#open === null && !hasSchema(this.ctx.storage.sql))) return;
    if ((info?.retryCount ?? 0) >= ALARM_RETRIES_SAFE) {
      await this.ctx.storage.setAlarm(Date.now() + ALARM_AFTER_FAILURE_MS);
      await this.ctx.storage.sync();
    }
    await this.#ensureOpen().maintenance.alarm();
  }

  /**
   * Takes a send: nonce, flags, rate and the message itself in one commit.
   *
   * @param submission JSON text of a {@link Submission}; flat text costs an RPC least
   * @returns JSON text of a {@link SubmissionReply}
   */
  async submit(submission: string, body: string): Promise<string> {
    const { submissions } = this.#ensureOpen();
    const reply = await this.#refusable((): Promise<SubmissionReply> =>
      submissions.submit(JSON.parse(submission) as Submission, body),
    );
    return JSON.stringify(reply);
  }

  /** Takes a send to all of a group, likewise: JSON texts of a {@link GroupSubmission} and a {@link GroupSubmissionReply}. */
  async submitToGroup(submission: string, body: string): Promise<string> {
    const { submissions } = this.#ensureOpen();
    const reply = await this.#refusable(async (): Promise<GroupSubmissionReply> => {
      const deliveries = await submissions.submitToGroup(JSON.parse(submission) as GroupSubmission, body);
      return { ok: true, deliveries };
    });
    return JSON.stringify(reply);
  }

  /**
   * Waits until a message of this agent has been acknowledged, or for so long; then says what waits for its recipient still.
   *
   * @param sender what the waiting request began under; whether that still holds is looked at when the wait is over
   */
  async awaitDelivery(
    deliveryId: string,
    waitMs: number,
    sender: WaitingSender,
  ): Promise<{ delivered: boolean; queueDepth: number; senderHasEnded: boolean }> {
    const { submissions, authority } = this.#ensureOpen();
    const waited = await submissions.awaitDelivery(deliveryId, waitMs);
    return { ...waited, senderHasEnded: !authority.holds(sender) || sender.expMs <= Date.now() };
  }

  /** Takes messages over from a sender's gate; on disk before the answer. */
  async receive(from: AgentDid, messages: QueuedMessage[]): Promise<TransferResult> {
    return this.#ensureOpen().intake.receive(from, messages);
  }

  /** What became of messages that were handed over; on disk before the answer. */
  async settle(outcomes: DeliveryOutcome[]): Promise<void> {
    await this.#ensureOpen().submissions.settle(outcomes);
  }

  /** What a recipient's program made of a message of this agent; on disk before the answer. Nothing is opened for a guess. */
  async recordHandling(deliveryId: string, recipient: AgentDid, handling: Handling): Promise<boolean> {
    return (await this.#open?.submissions.recordHandling(deliveryId, recipient, handling)) ?? false;
  }

  /** Attempts so far on a message that waits here. */
  async attempts(deliveryId: string): Promise<number | null> {
    return this.#open?.queue.attempts(deliveryId) ?? null;
  }

  /** Puts a message of the proxy's own into this agent's queue; on disk before the answer. */
  async notify(message: LocalMessage): Promise<{ deliveryId: string }> {
    const { commits, intake } = this.#ensureOpen();
    return commits.commit(() => intake.putLocal(message));
  }

  /** A peer below this trust epoch is out, here and from now on; on disk before the answer. */
  async fencePeer(peer: AgentDid, trustEpoch: number): Promise<void> {
    const { commits, intake } = this.#ensureOpen();
    await commits.commit(() => intake.fencePeer(peer, trustEpoch));
  }

  /** What was judged by an older list of a group's members is out, here and from now on; on disk before the answer. */
  async fenceGroup(fence: GroupFence): Promise<void> {
    const { commits, intake } = this.#ensureOpen();
    await commits.commit(() => intake.fenceGroup(fence));
  }

  /** What a task is at, to the sockets that may read tasks; nothing is kept of it. */
  async announceTask(payload: Record<string, unknown>): Promise<void> {
    this.#open?.relay.announceTask(payload);
  }

  /** Identity tokens that a registry has revoked: what runs under them ends here, though this agent may be idle. */
  async endTokens(tokens: { jti: string; expMs: number }[], reason: string): Promise<void> {
    // A gate that nobody has proved anything to has nothing that could end.
    if (this.#open === null) return;
    const { authority, commits, relay } = this.#open;
    await commits.commit(() => {
      authority.endTokens(tokens, reason);
      relay.sweep(Date.now());
    });
    // Also when this is repeated: the first time may have failed here.
    await runBatch(this.env.DB, raiseStatements([{ authority: `agent:${this.#self}`, epoch: authority.epoch() }]));
  }

  /** Admits one authenticated request and runs its calls in their order, each under the caller's authority. */
  async call(request: GateCall): Promise<GateAnswer> {
    return this.#refusable(async (): Promise<GateAnswer> => {
      const { rpcBody, calls, caller } = request;
      const ends = endsAuthority((rpcBody === undefined ? calls[0]?.method : peekMethod(rpcBody)) ?? "");
      const admitted = await this.#admit(caller, ends);
      return answerRequest(this.#ensureOpen(), { ...request, admitted, endsAuthority: ends });
    });
  }

  /** The caller's authority, decided here; the operator is above it. @throws GateRefusal */
  async #admit(caller: Exclude<GateCaller, { kind: "operator" }>, ends?: boolean): Promise<AuthorityRef>;
  async #admit(caller: GateCaller, ends?: boolean): Promise<AuthorityRef | OperatorPrincipal>;
  async #admit(caller: GateCaller, ends = false): Promise<AuthorityRef | OperatorPrincipal> {
    switch (caller.kind) {
      case "agent": {
        const stores = { ...this.#ensureOpen(), accessMaxStaleMs: this.#runtime.config.accessMaxStaleMs };
        return stores.commits.commit(() => {
          admitAgent(stores, caller.admission, Date.now(), null, ends);
          return agentRef(stores.authority, caller.admission);
        });
      }
      case "credential": {
        // Nothing is opened for a credential that may be a guess.
        const stores = this.#open;
        return caller.credential.kind === "device"
          ? admitDeviceToken(stores, caller.credential, ends)
          : admitShared(stores, this.#lockout, { credential: caller.credential, address: caller.address }, ends);
      }
      case "apiKey":
        return admitApiKey(this.#ensureOpen(), caller.key, ends);
      case "operator":
        this.#ensureOpen();
        return caller.principal ?? ROOT;
    }
  }

  /** The one-time hand-over of a new device token. */
  async claim(claim: Claim): Promise<ClaimAnswer> {
    return this.#refusable(async (): Promise<ClaimAnswer> => {
      const { deviceTokenTtlMs: tokenTtlMs } = this.#runtime.config;
      const handedOver = await claimDeviceToken(this.#open, this.#lockout, { ...claim, tokenTtlMs });
      const { device, token, expiresAtMs } = handedOver;
      if (handedOver.hasEndedToken) await endClaimedOver(this.#ensureOpen(), device);
      this.#log.info("device.claimed", { requestId: claim.requestId, deviceId: device.deviceId, epoch: device.epoch });
      return { ok: true, token, scopes: device.scopes, epoch: device.epoch, expiresAtMs };
    });
  }

  async #refusable<T>(work: () => Promise<T>): Promise<T | { ok: false; refusal: GateRefusal["refusal"] }> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof GateRefusal) return { ok: false, refusal: error.refusal };
      throw error;
    }
  }

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
    const { relayTickets, sockets, endReason, commits, relay } = this.#open;
    // A commit is an effect, if only on the alarm: none for a ticket that nobody has been given.
    if ("ticketSha256" in upgrade && !relayTickets.has(upgrade.ticketSha256))
      throw new ProxyError("PROXY_AUTH_INVALID_TOKEN");
    const pair = new WebSocketPair();
    const { session, superseded } = await commits.commit(() => {
      const nowMs = Date.now();
      const authority = "caller" in upgrade ? admitted : relayTickets.consume(upgrade.ticketSha256, nowMs);
      if (authority === null || endReason(authority) !== null) throw new ProxyError("PROXY_AUTH_INVALID_TOKEN");
      const scopes = scopesOf(authority.principal);
      const dialect = upgrade.protocol === RELAY_SUBPROTOCOL_V1 ? "v1" : "base";
      return sockets.accept(pair[1], { authority, scopes, origin: upgrade.origin, dialect }, nowMs);
    });
    relay.supersede(superseded);
    this.#log.info("relay.connected", {
      requestId: upgrade.requestId,
      socketId: session.socketId,
      sockets: sockets.size(),
    });
    if (session.scopes.includes("relay")) void sendDueReceipts(this.#open, session);
    return new Response(null, {
      status: 101,
      webSocket: pair[0],
      headers: {
        "X-Request-Id": upgrade.requestId,
        ...("protocol" in upgrade ? { "Sec-WebSocket-Protocol": upgrade.protocol } : {}),
      },
    });
  }

  override webSocketMessage(socket: WebSocket, message: string | ArrayBuffer): void {
    const session = this.#open?.sockets.of(socket) ?? null;
    // A frame of a socket that has been ended here: it may still arrive, and is not read.
    if (session !== null) this.#ensureOpen().relay.message(session, message);
  }

  override webSocketClose(socket: WebSocket): void {
    const session = this.#open?.sockets.of(socket) ?? null;
    if (session !== null) this.#ensureOpen().relay.gone(session);
    if (socket.readyState === WebSocket.CLOSED) return;
    // Completes the handshake. What the peer sent may be a code that nobody may send back.
    socket.close(RELAY_CLOSE.normal, "");
  }

  override webSocketError(socket: WebSocket, error: unknown): void {
    const session = this.#open?.sockets.of(socket) ?? null;
    this.#log.warn("relay.socket_error", errorFields(error));
    if (session !== null) this.#ensureOpen().relay.gone(session);
  }
}
