/** Tells sockets that a task's state has changed. Nothing depends on it: whoever misses it reads the task. */
import type { CallContext } from "../call/context.ts";
import { callRemoteGate } from "../call/remote-gate.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { stateOf } from "./state.ts";
import type { TaskRow } from "./store.ts";

/** A gate that takes longer than this misses it, rather than hold the answer up. */
const ANNOUNCEMENT_TIMEOUT_MS = 1_000;

/** Sends `task.updated`, without the result, to the sockets of the task's agent and of its creator's; after the commit. */
export async function announce(ctx: CallContext, row: TaskRow): Promise<void> {
  const { taskId, name, agentDid, statusMessage, updatedAtMs, endedAtMs } = row;
  const payload = {
    taskId,
    name,
    agentDid,
    status: stateOf(row),
    updatedAtMs,
    ...(statusMessage === null ? {} : { statusMessage }),
    ...(endedAtMs === null ? {} : { endedAtMs }),
  };
  const listeners = new Set([parseAgentDid(agentDid), row.creatorAgentDid].filter((did) => did !== null));
  await Promise.all([...listeners].map((did) => announceTo(ctx, did, payload)));
}

async function announceTo(ctx: CallContext, did: AgentDid, payload: Record<string, unknown>): Promise<void> {
  if (ctx.gate !== null && did === ctx.agentDid) return ctx.gate.announceTask(payload);
  try {
    await callRemoteGate(ctx, () => ctx.gates.of(did).announceTask(payload), ANNOUNCEMENT_TIMEOUT_MS);
  } catch {
    // Logged there; the change is committed, and its answer says so.
  }
}
