/** A call of an agent's or the operator's, over the real D1, with gates that record what they are notified. */
import { env } from "cloudflare:workers";
import { ROOT } from "../../src/authority/operator.ts";
import type { Authority } from "../../src/authority/authority.ts";
import type { Principal } from "../../src/authority/principal.ts";
import type { CallContext } from "../../src/call/context.ts";
import type { GateLocal, LocalMessage } from "../../src/call/gate.ts";
import type { RoundLimits } from "../../src/resilience/round.ts";
import type { Fields, Log } from "../../src/telemetry/log.ts";
import type { RemoteGate } from "../../src/call/remote-gate.ts";
import { type AgentDid, newDid } from "../../src/wire/did.ts";
import { ProxyError } from "../../src/wire/problem.ts";
import { newUlid } from "../../src/wire/ulid.ts";

export const AUTHORITY = "registry.sallyport.example";
export const NOW_MS = 1_790_000_000_000;

export const newAgentDid = (): AgentDid => newDid(AUTHORITY, "agent", newUlid(NOW_MS));

/** Limits of a round that nothing of a test reaches. */
export const ROUND: RoundLimits = { calls: 100, parallel: 8, durationMs: 60_000, callTimeoutMs: 1_000 };

export type Line = { level: "info" | "warn" | "error"; event: string; fields: Fields };

/** A log that can be read. */
export function recordingLog(): Log & { lines: Line[] } {
  const lines: Line[] = [];
  const log: Log & { lines: Line[] } = {
    lines,
    info: (event, fields = {}) => void lines.push({ level: "info", event, fields }),
    warn: (event, fields = {}) => void lines.push({ level: "warn", event, fields }),
    error: (event, fields = {}) => void lines.push({ level: "error", event, fields }),
    with: () => log,
  };
  return log;
}

export type CallHarness = {
  nowMs: number;
  log: ReturnType<typeof recordingLog>;
  /** What each gate's queue was notified, in order. */
  notified: { at: AgentDid; message: LocalMessage }[];
  /** Fences as `gate <- peer @ epoch`, and whether they were laid from inside the gate. */
  fences: { at: AgentDid; peer: AgentDid; epoch: number; local: boolean }[];
  /** Gates that cannot be reached. */
  broken: Set<AgentDid>;
  gates: { of(did: AgentDid): Pick<RemoteGate, "notify" | "fencePeer"> };
};

export function newCallHarness(): CallHarness {
  const harness: CallHarness = {
    nowMs: NOW_MS,
    log: recordingLog(),
    notified: [],
    fences: [],
    broken: new Set(),
    gates: {
      of: (at) => ({
        notify: async (message) => {
          if (harness.broken.has(at)) throw new Error("the gate is out of reach");
          harness.notified.push({ at, message });
          return { deliveryId: message.deliveryId ?? "none" };
        },
        fencePeer: async (peer, epoch) => {
          if (harness.broken.has(at)) throw new Error("the gate is out of reach");
          harness.fences.push({ at, peer, epoch, local: false });
        },
      }),
    },
  };
  return harness;
}

/** What trust asks of an authority. */
type Fencing = Pick<Authority, "assertCurrent" | "fence">;

/** The operator's: nothing ends it. */
const UNENDING: Fencing = { assertCurrent: () => {}, fence: () => [] };

/** An authority that is fenced in D1 by the real table, and ends when `ended` says so. */
export function authorityOf(agentDid: AgentDid, epoch = 0): Fencing & { ended: boolean } {
  const authority: Fencing & { ended: boolean } = {
    ended: false,
    assertCurrent() {
      if (authority.ended) throw new ProxyError("PROXY_AUTH_REVOKED");
    },
    fence: () => [{ authority: `agent:${agentDid}`, epoch }],
  };
  return authority;
}

const agentPrincipal = (agentDid: AgentDid): Principal => ({
  kind: "agent",
  agentDid,
  ownerDid: newDid(AUTHORITY, "human", newUlid(NOW_MS)),
  jti: newUlid(NOW_MS),
  expMs: NOW_MS + 3_600_000,
  keyX: "x".repeat(43),
});

/** The context of a call by this agent inside its own gate; `null` is the operator, in the Worker. */
export function callBy(harness: CallHarness, agentDid: AgentDid | null, authority?: Fencing): CallContext {
  // Trust asks of its own gate to lay fences, and nothing else.
  const gate: Pick<GateLocal, "fencePeer"> = {
    fencePeer: (peer, epoch) => {
      if (agentDid !== null) harness.fences.push({ at: agentDid, peer, epoch, local: true });
    },
  };
  return {
    env,
    db: env.DB,
    principal: agentDid === null ? ROOT : agentPrincipal(agentDid),
    authority: (authority ?? (agentDid === null ? UNENDING : authorityOf(agentDid))) as Authority,
    requestId: "test-request",
    origin: null,
    now: () => harness.nowMs,
    log: harness.log,
    agentDid,
    gates: harness.gates as unknown as CallContext["gates"],
    gate: agentDid === null ? null : (gate as GateLocal),
    config: {} as CallContext["config"],
  };
}
