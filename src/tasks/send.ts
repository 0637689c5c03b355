/** Messages and events to a task's agent. */
import { actorOf, senderSubject } from "../authz/actor.ts";
import type { CallContext } from "../call/context.ts";
import type { LocalMessage } from "../call/gate.ts";
import { callRemoteGate } from "../call/remote-gate.ts";
import { type AgentDid, parseAgentDid } from "../wire/did.ts";
import { type JsonText, writeJson } from "../wire/json-text.ts";
import { ProxyError } from "../wire/problem.ts";
import { permittedTask } from "./access.ts";
import { recordOperatorAccess } from "./operator-access.ts";
import { changeState } from "./change.ts";
import { stateOf } from "./state.ts";
import type { TaskKey, TaskRow } from "./store.ts";

const PAYLOAD_BYTES_MAX = 1_048_576;

/**
 * Delivers a message or an event to the task's agent, at least once. Needs `update` on the task and nothing else: pairing is
 * not consulted, and a task that cannot be found is not made.
 */
export async function sendToTask(
  ctx: CallContext,
  kind: "message" | "event",
  key: TaskKey,
  content: JsonText,
  operatorsAgent: string | null,
): Promise<{ deliveryId: string }> {
  const row = await permittedTask(ctx, actorOf(ctx.principal), key, "update", operatorsAgent);
  const to = parseAgentDid(row.agentDid);
  if (to === null) throw new ProxyError("PROXY_INTERNAL", { reason: "a task's agent is no agent DID" });
  const payload = writeJson({ kind, taskId: row.taskId, content });
  if (new TextEncoder().encode(payload).length > PAYLOAD_BYTES_MAX) throw new ProxyError("PROXY_BODY_TOO_LARGE");
  const message: LocalMessage = { ...senderOf(ctx), payload };
  await recordOperatorAccess(ctx, `${kind}.send`, row);
  ctx.authority.assertCurrent();
  const sent =
    ctx.gate === null ? await callRemoteGate(ctx, () => ctx.gates.of(to).notify(message)) : ctx.gate.send(to, message);
  // After the message: a task says that it goes on only when its agent gets to know with what.
  if (kind === "message" && stateOf(row) === "interrupted") await resume(ctx, row);
  return sent;
}

/** Continues an interrupted task, unless another message has done so, or it has ended meanwhile. */
async function resume(ctx: CallContext, row: TaskRow): Promise<void> {
  try {
    await changeState(ctx, row, { action: "task.resume", state: "running" });
  } catch (error) {
    if (!(error instanceof ProxyError) || error.code !== "PROXY_CONFLICT") throw error;
  }
}

function senderOf({ principal }: CallContext): { fromAgentDid: AgentDid | null; fromSubject?: string } {
  if (principal.kind === "agent" || principal.kind === "device") return { fromAgentDid: principal.agentDid };
  return { fromAgentDid: null, fromSubject: senderSubject(principal) };
}
