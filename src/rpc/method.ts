/**
 * What a method is. Everything authenticated but the hook and the socket upgrade is a method: declared once, with the schema
 * of its parameters and of its result, the permission it needs, and its handler. A method without a permission does not compile.
 */
import type * as z from "zod/mini";
import type { Config } from "../config.ts";
import type { ApiKeys } from "../authority/ended-api-keys.ts";
import type { Devices } from "../authority/devices.ts";
import type { Gate } from "../gate/gate.ts";
import type { DeliveryStatus } from "../gate/outbox/outbox.ts";
import type { DeadLetter } from "../gate/queue/queue.ts";
import type { SharedSecret } from "../authority/shared-secret.ts";
import type { AuditEvent } from "../audit/entry.ts";
import type { Log } from "../telemetry/log.ts";
import type { AgentDid, HumanDid } from "../wire/did.ts";
import type { ProblemCode } from "../wire/problem.ts";

/** Contract §5, Devices: what a credential may be used for. */
export const SCOPES = ["relay", "send", "tasks:read", "tasks:write", "devices", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

/** Who is calling, after the credential has been verified. */
export type Principal =
  | { kind: "agent"; agentDid: AgentDid; ownerDid: HumanDid; jti: string; expMs: number; keyX: string }
  | {
      kind: "device";
      agentDid: AgentDid;
      ownerDid: HumanDid | null;
      deviceId: string;
      scopes: readonly Scope[];
      epoch: number;
      expMs: number;
    }
  | { kind: "shared"; agentDid: AgentDid; generation: number }
  | {
      kind: "apiKey";
      agentDid: AgentDid;
      apiKeyId: string;
      serviceAccountId: string;
      tenantId: string;
      scopes: readonly Scope[];
    }
  | { kind: "operator" };

export type PrincipalKind = Principal["kind"];

/** What a shared secret carries. */
export const SHARED_SCOPES: readonly Scope[] = ["relay", "send"];

/** The scopes a principal holds: an agent all over itself, a shared secret `relay` and `send`, the rest what was granted. */
export function scopesOf(principal: Principal): readonly Scope[] {
  switch (principal.kind) {
    case "agent":
    case "operator":
      return SCOPES;
    case "shared":
      return SHARED_SCOPES;
    case "device":
    case "apiKey":
      return principal.scopes;
  }
}

/**
 * A caller's authority while a call runs. Stands directly before each durable effect and before each reply, because
 * every `await` is a place where a revocation may have happened.
 */
export type Authority = {
  /** @throws ProxyError when the authority has ended. */
  assertCurrent(): void;
  /** The first statements of every D1 batch under this authority: they abort the batch when the authority has ended. */
  fence(db: D1Database): D1PreparedStatement[];
  /** The caller has ended its own authority by this call: its answer still goes out, unless somebody ends what came of it. */
  endedItself(epoch: number): void;
};

/** Which sockets and calls a revocation ended. */
export type Fenced = { sockets: number; inFlight: number };

export type EndAgent = {
  reason: string;
  /** Re-key: the one identity token that survives. */
  keepJti?: string;
  /** One D1 batch holding `raise`; returns the unexpired jtis that ended. */
  commit: (raise: D1PreparedStatement[]) => Promise<{ jti: string; expMs: number }[]>;
};

/** What a message of the proxy's own carries into an agent's delivery queue. */
export type LocalMessage = {
  fromAgentDid: AgentDid | null;
  /** Who sent it where no agent did, e.g. `service_account:<id>`. */
  fromSubject?: string;
  /** JSON text. */
  payload: string;
  /** Makes the message repeatable: the same id is queued once. */
  deliveryId?: string;
  conversationId?: string;
};

/** Ends an authority: what is written in one turn, and what raises its fencing token in D1. */
export type EndAuthority<T> = {
  /** Synchronous: rows, epochs, audit. From its return on, nothing under the old authority is accepted. */
  apply: () => T;
  /** Fencing tokens to raise, by authority. */
  raise: (applied: T) => { authority: string; epoch: number }[];
};

/** Operations on the gate that a call runs in. */
export type GateLocal = {
  /**
   * Ends everything of this agent, or everything issued before `keepJti`: the gate's row, epoch and sockets in one turn;
   * then `commit`; then the calls in flight are drained. Sockets close with 4001 after the answer.
   *
   * @throws ProxyError DRAIN_TIMEOUT when that cannot be reached in 5 s.
   */
  endAgent(end: EndAgent): Promise<Fenced>;
  /**
   * Ends an authority: `apply` in one turn, then the fencing token at the primary, then the calls in flight. Its sockets
   * close after the answer.
   *
   * @throws ProxyError DRAIN_TIMEOUT when that cannot be reached in 5 s.
   */
  end<T>(end: EndAuthority<T>): Promise<{ applied: T; fenced: Fenced }>;
  /** Whether the agent itself has been revoked, or is being ended at this moment: nothing new is to be given out then. */
  isEnded(): boolean;
  devices: Devices;
  shared: SharedSecret;
  apiKeys: ApiKeys;
  /** An entry of the audit, in the commit of what it reports. */
  audit(event: AuditEvent): void;
  /** Tells the sockets that may manage devices. */
  broadcast(event: string, payload: Record<string, unknown>): void;
  /** Queues a message for this agent's own relay, at least once and in order. Durable before the call's answer. */
  deliverLocal(message: LocalMessage): { deliveryId: string };
  /** Puts a message for another agent into this agent's outbox; pairing is not consulted. Durable before the call's answer. */
  send(to: AgentDid, message: LocalMessage): { deliveryId: string };
  /** A peer below this trust epoch is out; what it has queued here unpushed is dead-lettered. Durable before the call's answer. */
  fencePeer(peer: AgentDid, trustEpoch: number): void;
  /** A relay ticket that carries this call's authority to a socket, once and for 30 s. */
  issueRelayTicket(): Promise<{ ticket: string; expiresAtMs: number }>;
  /** What became of a message that this agent sent; null when there is none, or none any more. */
  deliveryStatus(deliveryId: string): Promise<DeliveryStatus | null>;
  deadLetters: {
    /** Newest first; `before` is the id that the last page ended with. */
    list(before: string | null, limit: number): DeadLetter[];
    replay(id: string): boolean;
    purge(id: string): boolean;
  };
};

export type CallContext = {
  env: Env;
  config: Config;
  db: D1Database;
  principal: Principal;
  authority: Authority;
  requestId: string;
  /** Where the call came from, for the audit: an address, or null. */
  origin: string | null;
  now: () => number;
  log: Log;
  /** The agent this call is about, the gate's own; null for an operator's call about no agent. */
  agentDid: AgentDid | null;
  gates: { of(did: AgentDid): DurableObjectStub<Gate> };
  /** The gate that the call runs in; null where it runs in the Worker. */
  gate: GateLocal | null;
  /** How fresh a list must be, and how fresh a later one must be to see this call's writes; null where nobody asks. */
  bookmarks?: Bookmarks | null;
};

/** D1's bookmarks of one request, contract §5: `X-Sallyport-Bookmark`. */
export type Bookmarks = {
  /** What the caller has seen so far. */
  readonly given: string | null;
  /** What it will have seen with this answer. */
  latest: string | null;
};

export type Permission = {
  /** Which kinds of principal may call. */
  callers: readonly PrincipalKind[];
  /** The scope needed, or null where any holder of a valid credential of that kind may. */
  scope: Scope | null;
};

export type Method<P = unknown, R = unknown> = {
  name: string;
  /** `rpc`: reachable by name over `/rpc` and the socket; `http`: only behind its own route. */
  surface: "rpc" | "http";
  /** Runs in an agent's gate alone: an operator names the agent by `agentDid`. */
  inGate?: true;
  permission: Permission;
  params: z.ZodMiniType<P>;
  /** The code for parameters that do not fit; `PROXY_BAD_REQUEST` unless said otherwise. */
  invalidParams?: ProblemCode;
  result: z.ZodMiniType<R>;
  handler(ctx: CallContext, params: P): Promise<R>;
};

/** Declares a method. Types of parameters and result follow from the schemas. */
export function defineMethod<P, R>(method: Method<P, R>): Method {
  return method;
}
